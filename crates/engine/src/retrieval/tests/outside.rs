//! Stages that ask something outside, or run code of others.

use super::*;
use crate::retrieval::backend::{Call, Lookup, Reply, Rows};
use std::collections::HashMap;

fn scan(parameters: Value, id: &str) -> Value {
    let all = json!({"field": "n", "operator": "gt", "value": 0});
    json!([stage("attribute_filter", all), stage(id, parameters)])
}
fn nothing(parameters: Value, id: &str) -> Value {
    json!([stage("attribute_filter", json!({"field": "n", "value": 4711})), stage(id, parameters)])
}

/// Answers JSON that says what was asked; `/fail` answers 500, `/text` no JSON, `/page` a page.
fn echo(call: &Call) -> strata_model::Result<Reply> {
    let (status, kind, body) = match &call.url {
        url if url.contains("/fail") || url.contains("plum") => (500, "text/plain", format!("broken by {url}")),
        url if url.ends_with("/robots.txt") => (200, "text/plain", "User-agent: *\nDisallow: /closed".to_owned()),
        url if url.contains("/text") => (200, "text/plain", "hello".to_owned()),
        url if url.contains("/page") => {
            let html = "<title>Page</title><body><p>Words of a page.</p><a href=/page2>2</a><a href=/closed>3</a><a href=//else.where/x>4</a>";
            (200, "text/html", html.to_owned())
        }
        url => {
            let headers: HashMap<&String, &String> = call.headers.iter().map(|(name, value)| (name, value)).collect();
            let body = call.body.as_deref().map(String::from_utf8_lossy);
            (
                200,
                "application/json",
                json!({"url": url, "method": call.method, "headers": headers, "body": body}).to_string(),
            )
        }
    };
    Ok(Reply {
        status,
        url: call.url.clone(),
        media_type: Some(kind.into()),
        charset: None,
        body: body.into_bytes(),
        retry_after: None,
    })
}
fn world() -> Fake {
    let mut fake = Fake::fruit();
    fake.outside = Some(echo);
    fake.secrets = HashMap::from([("token".into(), "t0p&secret".into()), ("login".into(), "ann:pass".into())]);
    fake
}
fn done(stages: Value) -> Execution {
    run(&world(), &plan(stages), request(json!({"q": "a b"}))).unwrap()
}
fn failing(stages: Value) -> String {
    run(&world(), &plan(stages), request(json!({"q": "a b"}))).unwrap_err()
}
fn at<'e>(made: &'e Execution, hit: usize, pointer: &str) -> &'e Value {
    static NONE: Value = Value::Null;
    let (field, rest) = pointer.split_once('/').unwrap_or((pointer, ""));
    let value = made.hits[hit].document.fields.get(field).unwrap_or(&NONE);
    value.pointer(&if rest.is_empty() { String::new() } else { format!("/{rest}") }).unwrap_or(&NONE)
}
fn api(parameters: Value) -> Value {
    let mut all = json!({"url": "https://api.example.com/items/{DOC.text}", "allowed_domains": ["api.example.com"]});
    all.as_object_mut().unwrap().extend(parameters.as_object().cloned().unwrap());
    all
}

#[test]
fn an_api_is_called_for_each_document() {
    let made = done(scan(
        api(json!({
            "method": "post", "headers": {"X-Kind": "{{DOC.kind}}", "X-N": "{DOC.n}"},
            "body": {"n": "{DOC.n}", "q": "for {{INPUT.q}}", "plain": "{x}"}, "output_field": "api.answer",
        })),
        "api_call",
    ));
    assert_eq!(made.hits.len(), 6);
    assert_eq!(at(&made, 0, "api/answer/url"), "https://api.example.com/items/apple%20pie");
    assert_eq!(at(&made, 0, "api/answer/method"), "POST");
    assert_eq!(at(&made, 1, "api/answer/headers/X-Kind"), "plant");
    assert_eq!(at(&made, 0, "api/answer/headers/X-N"), "3");
    assert_eq!(at(&made, 0, "api/answer/headers/Content-Type"), "application/json");
    let body: Value = serde_json::from_str(at(&made, 0, "api/answer/body").as_str().unwrap()).unwrap();
    assert_eq!(body, json!({"n": 3, "q": "for a b", "plain": "{x}"}));
    // The plum's answer is a failure: it passes as it is.
    assert_eq!(made.stages[1].metadata, *json!({"made": 5, "failed": 1}).as_object().unwrap());
    assert!(made.hits[3].document.fields.get("api").is_none());
    assert!(made.warnings.iter().any(|w| w.contains("`doc_4`") && w.contains("answered 500")), "{:?}", made.warnings);
    let part =
        done(scan(api(json!({"response_path": "method", "when": {"field": "kind", "value": "plant"}})), "api_call"));
    assert_eq!((at(&part, 1, "api_response"), at(&part, 0, "api_response")), (&json!("GET"), &Value::Null));
    let text = done(scan(api(json!({"url": "https://api.example.com/text"})), "api_call"));
    assert_eq!(at(&text, 0, "api_response"), "hello");
    assert!(done(nothing(api(json!({})), "api_call")).hits.is_empty());
}

#[test]
fn a_failed_call_skips_removes_or_raises() {
    let of = |word: &str| scan(api(json!({"on_error": word})), "api_call");
    assert_eq!(done(of("skip")).hits.len(), 6);
    assert_eq!(seqs(&done(of("remove"))), [1, 2, 3, 5, 6]);
    assert!(failing(of("raise")).contains("answered 500"));
    let missing = done(scan(api(json!({"url": "https://api.example.com/{DOC.nothing}"})), "api_call"));
    assert_eq!(missing.stages[1].metadata["failed"], 6);
    assert!(missing.warnings[0].contains("`DOC.nothing`"), "{:?}", missing.warnings);
}

#[test]
fn secrets_are_sent_and_never_shown() {
    let headers = json!({"Authorization": "Bearer {{secrets.token}}"});
    for (parameters, sent) in [
        (json!({"headers": headers}), "headers/Authorization"),
        (json!({"auth": {"type": "bearer", "secret_ref": "token"}}), "headers/Authorization"),
        (json!({"auth": {"type": "api_key", "secret_ref": "{{secrets.token}}", "key": "X-Key"}}), "headers/X-Key"),
        (json!({"auth": {"type": "custom_header", "secret_ref": "token"}}), "headers/X-API-Key"),
        (json!({"auth": {"type": "basic", "secret_ref": "login"}}), "headers/Authorization"),
        (json!({"auth": {"type": "api_key", "secret_ref": "token", "location": "query", "key": "key"}}), "url"),
        (json!({"url": "https://api.example.com/?k={{SECRET.token}}"}), "url"),
        (json!({"method": "POST", "body": {"key": "{SECRET.token}"}}), "body"),
        (json!({"method": "POST", "body": "key={SECRET.token}"}), "body"),
    ] {
        let made = done(scan(api(parameters.clone()), "api_call"));
        let shown = at(&made, 0, &format!("api_response/{sent}")).as_str().unwrap();
        assert!(shown.contains("[secret]"), "{parameters}: {shown}");
        let all = format!("{:?}", made);
        for spelling in ["t0p&secret", "t0p%26secret", "dDBwJnNlY3JldA==", "ann:pass", "YW5uOnBhc3M="] {
            assert!(!all.contains(spelling), "{parameters} shows {spelling}: {all}");
        }
    }
    let failed = failing(scan(
        api(json!({"url": "https://api.example.com/fail?k={SECRET.token}", "on_error": "raise"})),
        "api_call",
    ));
    assert!(failed.contains("[secret]") && !failed.contains("t0p"), "{failed}");
    let unknown = scan(api(json!({"headers": {"X-Key": "{{SECRET.nobody}}"}})), "api_call");
    let message = failing(unknown);
    assert!(
        message.contains("parameters.headers.X-Key") && message.contains("the secret `nobody` does not exist"),
        "{message}"
    );
}

#[test]
fn secrets_are_refused_where_they_would_be_shown() {
    for (id, parameters, place) in [
        ("api_call", api(json!({"output_field": "{{SECRET.token}}"})), "parameters.output_field"),
        ("api_call", api(json!({"when": {"field": "a", "value": "{{SECRET.token}}"}})), "parameters.when"),
        ("api_call", api(json!({"response_path": "{{secrets.token}}"})), "parameters.response_path"),
        ("web_scrape", json!({"url": "https://h/{{SECRET.token}}"}), "parameters.url"),
        (
            "code_execution",
            json!({"language": "javascript", "code": "return 1", "env": {"K": "{{SECRET.token}}"}}),
            "parameters.env.K",
        ),
        ("limit", json!({"limit": "{{SECRET.token}}"}), "parameters.limit"),
        ("rag_prepare", json!({"document_template": "{{SECRET.token}}"}), "parameters.document_template"),
    ] {
        let message = refused(scan(parameters, id));
        assert!(message.contains(place) && message.contains("secrets are not available"), "{id}: {message}");
    }
}

#[test]
fn an_api_call_that_cannot_be_is_refused() {
    for (parameters, place, word) in [
        (json!({"url": null}), "parameters.url", "is required"),
        (json!({"allowed_domains": []}), "allowed_domains", "1 to 100"),
        (json!({"allowed_domains": null}), "allowed_domains", "is required"),
        (json!({"allowed_domains": ["https://a.b"]}), "allowed_domains.0", "not a host"),
        (json!({"method": "TRACE"}), "method", "one of"),
        (json!({"headers": {"Host": "x"}}), "headers.Host", "sets itself"),
        (json!({"headers": {"a b": "x"}}), "headers.a b", "name of a header"),
        (json!({"headers": {"X": "a\r\nb"}}), "headers.X", "one line"),
        (json!({"auth": {"type": "bearer"}}), "auth.secret_ref", "is required"),
        (json!({"auth": {"type": "magic"}}), "auth.type", "one of"),
        (json!({"timeout": 61}), "timeout", "from 1 to 60"),
        (json!({"max_response_size": 1}), "max_response_size", "from 1024"),
        (json!({"rate_limit": {"requests_per_minute": 0}}), "rate_limit.requests_per_minute", "from 1"),
        (json!({"on_error": "shrug"}), "on_error", "one of"),
        (json!({"output_field": "a..b"}), "output_field", "dot path"),
    ] {
        let message = refused(scan(api(parameters.clone()), "api_call"));
        assert!(message.contains(place) && message.contains(word), "{parameters}: {message}");
    }
    // A header that is known only when the document is there must be one line, too.
    let split = scan(api(json!({"headers": {"X": "{{INPUT.line}}"}})), "api_call");
    let made = run(&world(), &plan(split), request(json!({"line": "a\r\nHost: b"}))).unwrap();
    assert_eq!(made.stages[1].metadata["failed"], 6);
}

#[test]
fn pages_become_text_or_documents() {
    let of_documents = scan(json!({"url": "https://site.example/page?{{DOC.n}}", "include_links": true}), "web_scrape");
    let made = done(of_documents);
    assert_eq!((made.hits.len(), at(&made, 0, "web_content/title")), (6, &json!("Page")));
    assert_eq!(at(&made, 0, "web_content/url"), "https://site.example/page?3");
    assert_eq!(at(&made, 0, "web_content/links/0"), "https://site.example/page2");
    assert!(at(&made, 0, "web_content/text").as_str().unwrap().contains("Words of a page."));
    let alone = done(json!([stage("web_scrape", json!({"url": "https://site.example/page"}))]));
    assert_eq!((alone.hits.len(), alone.hits[0].document.document_id.as_str()), (1, "web_1"));
    let crawl = json!({"url": "https://site.example/page", "max_depth": 2, "delay_between_requests": 0, "same_domain_only": false});
    let fake = world();
    let crawled = run(&fake, &plan(json!([stage("web_scrape", crawl)])), request(json!({}))).unwrap();
    let urls: Vec<&str> =
        (0..crawled.hits.len()).map(|i| at(&crawled, i, "web_content/url").as_str().unwrap()).collect();
    assert_eq!(urls[..2], ["https://site.example/page", "https://site.example/page2"]);
    assert_eq!(fake.called("call GET https://site.example/robots.txt"), 1, "asked once");
    assert_eq!(fake.called("call GET https://site.example/closed"), 0, "robots.txt is honoured");
    let few = json!({"url": "https://site.example/page", "max_depth": 2, "max_pages": 2, "delay_between_requests": 0, "same_domain_only": false});
    let spread = json!([stage("web_scrape", few), stage("mmr", json!({"feature_uri": "text"}))]);
    assert_eq!(done(spread).hits.len(), 2, "pages are in no collection and have no vectors");
    let three = json!({"url": "https://site.example/page", "max_depth": 2, "max_pages": 3, "delay_between_requests": 0, "same_domain_only": false});
    assert_eq!(done(json!([stage("web_scrape", three)])).hits.len(), 2, "the closed page counts as one that was tried");
    let closed = scan(json!({"url": "https://site.example/closed?{{DOC.n}}", "on_error": "raise"}), "web_scrape");
    assert!(failing(closed).contains("robots.txt"));
    let no_field = done(scan(json!({}), "web_scrape"));
    assert!(no_field.stages[1].metadata["failed"] == 6 && no_field.warnings[0].contains("metadata.url"));
    assert!(refused(scan(json!({"strategy": "javascript"}), "web_scrape")).contains("browser"));
    assert!(refused(scan(json!({"max_depth": 9}), "web_scrape")).contains("max_depth"));
    assert!(done(nothing(json!({}), "web_scrape")).hits.is_empty());
}

#[test]
fn content_at_a_url_is_searched_with_its_text() {
    let search = |query: Value, inputs: Value| {
        let stages = json!([stage("feature_search", json!({"searches": [{"query": query, "feature_uri": "words"}]}))]);
        let fake = world();
        run(&fake, &plan(stages), request(inputs)).map(|made| (made.hits.len(), fake.called("call GET https://")))
    };
    let query = json!({"input_mode": "content", "value": "{{INPUT.q}}"});
    let url = |url: &str| json!({"q": url});
    assert_eq!(search(query.clone(), url("https://site.example/text")), Ok((6, 1)));
    let page = "data:text/html,<title>Page</title><p>apple</p>";
    assert_eq!(search(query.clone(), url(page)), Ok((6, 0)), "of a short page all text is taken");
    let failed = search(query.clone(), url("https://site.example/fail")).unwrap_err();
    assert!(failed.contains("answered 500"), "{failed}");
    let picture = format!("data:image/png;base64,{}", "iVBORw0KGgo=");
    let refused = search(query, json!({"q": picture})).unwrap_err();
    assert!(refused.contains("makes no vectors of images"), "{refused}");
    let hidden = search(json!("{{INPUT.q}}"), json!({"q": {"url": "https://site.example/text"}})).unwrap_err();
    assert!(hidden.contains("the retriever itself"), "an input does not make the server fetch: {hidden}");
}

fn script(parameters: Value) -> Value {
    let mut all = json!({"language": "javascript"});
    all.as_object_mut().unwrap().extend(parameters.as_object().cloned().unwrap());
    all
}

#[test]
fn code_computes_over_all_documents_or_each() {
    let made = done(scan(
        script(
            json!({"code": "result = docs.map(d => d.n * 2 + INPUT.q + env.unit)", "env": {"unit": "{{INPUT.q}}"}, "output_field": "twice"}),
        ),
        "code_execution",
    ));
    assert_eq!((made.hits.len(), at(&made, 0, "twice")), (6, &json!("6a ba b")));
    let each = done(scan(
        json!({"runtime": "javascript", "code": "if (doc.kind !== 'cake') return null; return {...doc, score: doc.n, document_id: 'x'};"}),
        "code_execution",
    ));
    assert_eq!(seqs(&each), [1, 4, 6]);
    assert_eq!((each.hits[0].score, each.hits[0].document.document_id.as_str()), (Some(3.0), "doc_1"));
    assert!(each.hits[0].document.fields.get("score").is_none() && at(&each, 0, "text") == "apple pie");
    let value = done(scan(script(json!({"code": "console.log(doc.n); return doc.n > 4"})), "code_execution"));
    assert_eq!((at(&value, 0, "computed"), at(&value, 1, "computed")), (&json!(false), &json!(true)));
    assert_eq!(value.stages[1].metadata["console"], json!(["3", "9", "7", "2", "5", "1"]));
    assert!(done(nothing(script(json!({"code": "return doc"})), "code_execution")).hits.is_empty());
}

#[test]
fn code_that_fails_skips_removes_or_raises() {
    let of = |word: &str| {
        scan(
            script(json!({"code": "if (doc.n > 6) throw new Error('too many'); return 1", "on_error": word})),
            "code_execution",
        )
    };
    assert_eq!(done(of("skip")).stages[1].metadata["failed"], 2);
    assert_eq!(seqs(&done(of("remove"))), [1, 4, 5, 6]);
    assert!(failing(of("raise")).contains("`stages.1.config.parameters.code`: Error: too many"));
    let short = scan(script(json!({"code": "result = docs.slice(1)", "on_error": "raise"})), "code_execution");
    assert!(failing(short).contains("a list of 5 for 6 documents"));
    let endless = scan(
        script(json!({"code": "while (true) {} // docs", "timeout_ms": 100, "on_error": "raise"})),
        "code_execution",
    );
    assert!(failing(endless).contains("did not end within 100 ms"));
    for (parameters, place, word) in [
        (json!({"code": "result = 1"}), "parameters.language", "JavaScript"),
        (json!({"code": "result = 1", "language": "python"}), "parameters.language", "JavaScript"),
        (json!({"code": "return 1", "runtime": "python3.11"}), "parameters.runtime", "JavaScript"),
        (json!({"code": "const x: number = 1", "language": "typescript"}), "parameters.language", "JavaScript"),
        (script(json!({})), "parameters.code", "is required"),
        (script(json!({"code": "return ("})), "parameters.code", "cannot be understood: SyntaxError"),
        (script(json!({"code": "return '{{INPUT.q}}'"})), "parameters.code", "no templates"),
        (script(json!({"code": "return 1", "result_variable": "a b"})), "parameters.result_variable", "variable"),
        (script(json!({"code": "return 1", "timeout_ms": 99})), "parameters.timeout_ms", "from 100"),
    ] {
        let message = refused(scan(parameters.clone(), "code_execution"));
        assert!(message.contains(place) && message.contains(word), "{parameters}: {message}");
    }
}

/// A table of kinds: cake has one row, plant two, everything else none. `broken` fails.
fn table(lookup: &Lookup) -> strata_model::Result<Rows> {
    let row = |fields: Value| fields.as_object().cloned().unwrap();
    if lookup.connection != "shop" {
        return Err(strata_model::Error::invalid("connection_id", format!("`{}` does not exist", lookup.connection)));
    }
    let rows = match lookup.values.first().and_then(Value::as_str) {
        Some("cake") => vec![row(json!({"taste": "sweet", "n": 1}))],
        Some("plant") => vec![row(json!({"taste": "green"})), row(json!({"taste": "bitter"}))],
        Some("broken") => return Err(strata_model::Error::Upstream("the database closed the connection".into())),
        None => vec![row(json!({"id": 1})), row(json!({"id": 2}))],
        _ => Vec::new(),
    };
    Ok(Rows { rows, is_cut: false })
}
fn sql(parameters: Value) -> Value {
    let mut all = json!({"connection_id": "shop", "query": "SELECT * FROM kinds WHERE kind = :kind", "parameters": {"kind": "{{DOC.kind}}"}});
    all.as_object_mut().unwrap().extend(parameters.as_object().cloned().unwrap());
    all
}
fn databases() -> Fake {
    Fake { databases: Some(table), ..world() }
}
fn rows(stages: Value) -> Execution {
    run(&databases(), &plan(stages), request(json!({"kind": "cake"}))).unwrap()
}

#[test]
fn rows_join_documents_by_bound_values() {
    let fake = databases();
    let first = run(&fake, &plan(scan(sql(json!({})), "sql_lookup")), request(json!({}))).unwrap();
    assert_eq!(at(&first, 0, "sql_result"), &json!({"taste": "sweet", "n": 1}));
    assert_eq!(at(&first, 1, "sql_result/taste"), "green");
    assert!(first.hits[4].document.fields.get("sql_result").is_none(), "a stone has no row");
    assert_eq!(fake.called("look_up"), 3, "documents with the same values share a query");
    let all = rows(scan(sql(json!({"result_handling": "all", "on_no_results": "null"})), "sql_lookup"));
    assert_eq!((at(&all, 1, "sql_result/1/taste"), at(&all, 4, "sql_result")), (&json!("bitter"), &Value::Null));
    assert!(all.hits[4].document.fields.contains_key("sql_result"));
    let inline = rows(scan(
        sql(json!({"query": "SELECT * FROM kinds WHERE kind = '{{DOC.kind}}'", "parameters": {}})),
        "sql_lookup",
    ));
    assert_eq!(at(&inline, 0, "sql_result/taste"), "sweet");
    let several = rows(scan(sql(json!({"result_handling": "error_if_multiple", "on_error": "remove"})), "sql_lookup"));
    assert_eq!(seqs(&several), [1, 4, 5, 6]);
    let empty = rows(scan(sql(json!({"result_handling": "error_if_empty", "on_error": "remove"})), "sql_lookup"));
    assert_eq!(seqs(&empty), [1, 2, 3, 4, 6]);
    let error = scan(sql(json!({"on_no_results": "error", "on_error": "raise"})), "sql_lookup");
    assert!(run(&databases(), &plan(error), request(json!({}))).unwrap_err().contains("found no row"));
    let when = rows(scan(sql(json!({"when": {"field": "kind", "value": "plant"}})), "sql_lookup"));
    assert!(when.hits[0].document.fields.get("sql_result").is_none() && at(&when, 1, "sql_result/taste") == "green");
}

#[test]
fn rows_become_documents_where_there_are_none() {
    let alone = rows(json!([stage("sql_lookup", json!({"connection_id": "shop", "query": "SELECT id FROM t"}))]));
    assert_eq!((alone.hits.len(), alone.hits[1].document.document_id.as_str()), (2, "sql_2"));
    assert_eq!(at(&alone, 1, "id"), 2);
    let by_input = sql(json!({"parameters": {"kind": "{{INPUT.kind}}"}}));
    assert_eq!(at(&rows(json!([stage("sql_lookup", by_input.clone())])), 0, "taste"), "sweet");
    assert_eq!(at(&rows(nothing(by_input, "sql_lookup")), 0, "taste"), "sweet");
    assert!(rows(nothing(sql(json!({})), "sql_lookup")).hits.is_empty(), "a query of each document needs some");
    let sorted = json!([
        stage("sql_lookup", json!({"connection_id": "shop", "query": "SELECT id FROM t"})),
        stage("sort_attribute", json!({"field": "id", "direction": "desc"}))
    ]);
    assert_eq!(at(&rows(sorted), 0, "id"), 2);
}

#[test]
fn a_lookup_that_cannot_be_is_refused_or_told() {
    for (parameters, place, word) in [
        (json!({"connection_id": null}), "parameters.connection_id", "is required"),
        (json!({"query": null}), "parameters.query", "is required"),
        (json!({"query": "DELETE FROM kinds"}), "parameters.query", "one SELECT"),
        (json!({"query": "SELECT 1; SELECT 2"}), "parameters.query", "one statement"),
        (json!({"parameters": {}}), "parameters.parameters.kind", "is required"),
        (
            json!({"parameters": {"kind": "{{SECRET.token}}"}}),
            "parameters.parameters.kind",
            "secrets are not available",
        ),
        (json!({"result_handling": "some"}), "result_handling", "one of"),
        (json!({"on_no_results": "cry"}), "on_no_results", "one of"),
        (json!({"timeout": 301}), "timeout", "from 1 to 300"),
    ] {
        let message = refused(scan(sql(parameters.clone()), "sql_lookup"));
        assert!(message.contains(place) && message.contains(word), "{parameters}: {message}");
    }
    let broken = scan(sql(json!({"parameters": {"kind": "broken"}, "on_error": "raise"})), "sql_lookup");
    assert!(run(&databases(), &plan(broken), request(json!({}))).unwrap_err().contains("closed the connection"));
    let unknown = rows(scan(sql(json!({"connection_id": "nobody"})), "sql_lookup"));
    assert!(unknown.warnings[0].contains("`nobody` does not exist"), "{:?}", unknown.warnings);
    let missing = rows(scan(sql(json!({"parameters": {"kind": "{{DOC.absent}}"}})), "sql_lookup"));
    assert!(missing.stages[1].metadata["failed"] == 6 && missing.warnings[0].contains("`DOC.absent`"));
}

#[test]
fn what_is_outside_is_never_taken_from_what_was_kept() {
    let fake = databases();
    let stages = plan(scan(sql(json!({})), "sql_lookup"));
    for _ in 0..2 {
        run(&fake, &stages, request(json!({}))).unwrap();
    }
    assert_eq!(fake.called("look_up"), 6, "asked each time");
    assert!(
        stages.reaches_outside()
            && stages.connections() == [("shop".to_owned(), "stages.1.config.parameters.connection_id".to_owned())]
    );
    let inner = json!({"stages": [stage("api_call", api(json!({"auth": {"type": "bearer", "secret_ref": "token"}})))]});
    let nested = plan(scan(json!({"retriever_config": inner, "output_field": "x"}), "document_enrich"));
    assert!(nested.reaches_outside());
    let place = "stages.1.config.parameters.retriever_config.stages.0.config.parameters.auth.secret_ref";
    assert_eq!(nested.secrets(), [("token".to_owned(), place.to_owned())]);
}
