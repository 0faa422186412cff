//! Stages that make something of each document: templates, contexts, joins.

use super::*;
use serde_json::Map;
use strata_model::document::Vectors;

fn scan(parameters: Value, id: &str) -> Value {
    let all = json!({"field": "n", "operator": "gt", "value": 0});
    json!([stage("attribute_filter", all), stage(id, parameters)])
}
fn of(parameters: Value, id: &str) -> Execution {
    found(scan(parameters, id), json!({"query": "fruit"}))
}
fn nothing(id: &str, parameters: Value) -> Execution {
    found(json!([stage("attribute_filter", json!({"field": "n", "value": 4711})), stage(id, parameters)]), json!({}))
}

#[test]
fn a_template_makes_each_document_anew() {
    let template = r#"{
        "name": {{ DOC.text | tojson }}, "asked": {{ INPUT.query | tojson }}, "missing": "{{ doc.absent }}",
        "letters": [{% for word in [DOC.kind, "x"] %}{{ word | upper | tojson }}{% if not loop.last %},{% endif %}{% endfor %}]
    }"#;
    let made = of(json!({ "template": template }), "json_transform");
    assert_eq!(made.hits.len(), 6);
    let expected = json!({"name": "apple pie", "asked": "fruit", "missing": "", "letters": ["CAKE", "X"]});
    assert_eq!(Value::Object(made.hits[0].document.fields.clone()), expected);
    assert_eq!(made.hits[0].document.document_id, "doc_1", "it is the same document");
}

#[test]
fn a_document_that_cannot_be_rendered_is_left_out_or_fails_the_stage() {
    // Of six documents two have a number that leaves the JSON whole.
    let template = r#"{"a": {% if DOC.n > 6 %}1{% endif %}}"#;
    let made = of(json!({ "template": template }), "json_transform");
    assert_eq!(seqs(&made), [2, 3]);
    assert_eq!(made.stages[1].metadata["failed"], 4);
    assert!(made.warnings.iter().any(|w| w.contains("no JSON")), "{:?}", made.warnings);
    let strict = scan(json!({ "template": template, "fail_on_error": true }), "json_transform");
    assert!(failed(strict, json!({})).contains("parameters.template"));
    assert!(nothing("json_transform", json!({ "template": "{}" })).hits.is_empty());
    for (template, word) in [
        ("{% include 'x' %}", "not `include`"),
        ("{% set a = 'xx' %}{% set a = a ~ a %}", "not `set`"),
        ("{% for a in b %}", "not a template"),
        ("{{ DOC.a | base64 }}", "not a template"),
        ("{{ SECRET.key }}", "secrets"),
        ("{{ nobody.a }}", "not a template namespace"),
    ] {
        let message = refused(scan(json!({ "template": template }), "json_transform"));
        assert!(message.contains(word) && message.contains("template"), "{template}: {message}");
    }
    assert!(refused(scan(json!({}), "json_transform")).contains("`stages.1.config.parameters.template`"));
}

#[test]
fn a_template_that_would_go_on_for_ever_is_stopped() {
    let loops = "{% for a in INPUT.list %}{% for b in INPUT.list %}{% for c in INPUT.list %}x{% endfor %}{% endfor %}{% endfor %}";
    let stages = scan(json!({ "template": loops, "fail_on_error": true }), "json_transform");
    let list: Vec<u32> = (0..1_000).collect();
    assert!(failed(stages, json!({ "list": list })).contains("cannot be evaluated"));
}

#[test]
fn documents_become_one_text_with_citations() {
    let made = of(json!({}), "rag_prepare");
    assert_eq!(made.hits.len(), 1);
    let fields = &made.hits[0].document.fields;
    let text = fields["rag_context"].as_str().unwrap();
    assert!(text.starts_with("[1] apple pie\n\n[2] apple tree\n"), "{text:?}");
    let citations = fields["citations"].as_array().unwrap();
    assert_eq!(
        (citations.len(), &citations[5]["index"], &citations[5]["document_id"]),
        (6, &json!(6), &json!("doc_6"))
    );
    // A token of this vocabulary is about a short word.
    assert!((25..60).contains(&fields["token_count"].as_u64().unwrap()), "{}", fields["token_count"]);
    let own = json!({
        "document_template": "{{CONTEXT.INDEX}}/{{CONTEXT.CITATION}} {{DOC.text}} for {{INPUT.query}}", "separator": "; ",
        "citation": {"style": "footnote", "include_title": false}, "context_field": "prompt", "citations_field": "notes",
    });
    let made = of(own, "rag_prepare");
    let fields = &made.hits[0].document.fields;
    assert!(
        fields["prompt"].as_str().unwrap().starts_with("1/[^1] apple pie for fruit; 2/[^2] "),
        "{}",
        fields["prompt"]
    );
    assert!(fields["notes"][0].get("title").is_none());
    let empty = nothing("rag_prepare", json!({}));
    assert_eq!(empty.hits[0].document.fields["rag_context"], "");
}

/// Documents of 61 tokens each: the text is one word many times.
fn long() -> Fake {
    let mut fake = Fake::fruit();
    for (document, _) in &mut fake.documents {
        document.fields.insert("text".into(), vec!["apple"; 60].join(" ").into());
    }
    fake
}

#[test]
fn a_budget_is_kept_by_cutting_sharing_or_leaving_out() {
    let of = |strategy: &str| {
        let parameters = json!({
            "max_tokens": 150, "truncation_strategy": strategy, "output_mode": "formatted_list", "citation": {"style": "none"},
        });
        run(&long(), &plan(scan(parameters, "rag_prepare")), request(json!({}))).unwrap()
    };
    let tokens = |made: &Execution| {
        made.hits.iter().map(|hit| hit.document.fields["token_count"].as_u64().unwrap()).collect::<Vec<_>>()
    };
    let cut = |made: &Execution| made.hits.iter().filter(|hit| hit.document.fields["truncated"] == true).count();
    let priority = of("priority_truncate");
    let counts = tokens(&priority);
    assert!(counts.len() == 3 && counts[2] < counts[0] && cut(&priority) == 1, "{counts:?}");
    assert!(priority.stages[1].metadata["tokens"].as_u64().unwrap() <= 150);
    let whole = of("drop_last");
    assert_eq!((whole.hits.len(), cut(&whole)), (2, 0));
    assert_eq!(whole.stages[1].metadata["left_out"], 4);
    let shared = of("proportional");
    assert!(shared.hits.len() == 6 && cut(&shared) == 6, "{:?}", tokens(&shared));
    assert!(tokens(&shared).iter().all(|count| *count <= 25));
    assert!(shared.hits[0].document.fields["formatted_content"].as_str().unwrap().starts_with("apple apple"));
    assert!(refused(scan(json!({"max_tokens": 1}), "rag_prepare")).contains("from 100"));
    assert!(refused(scan(json!({"tokenizer": "mine"}), "rag_prepare")).contains("cl100k_base"));
}

/// The fruit, and a second collection that says what each kind is.
fn two_collections() -> Fake {
    let mut fake = Fake::fruit();
    let mut kinds = fake.collections[0].clone();
    (kinds.collection_id, kinds.collection_name) = ("col_kinds".into(), "kinds".into());
    fake.collections.push(kinds);
    for (seq, kind, fields) in [
        (101, "cake", json!({"kind": "cake", "taste": "sweet", "facts": {"oven": true}, "n": 5})),
        (102, "plant", json!({"kind": "plant", "taste": "green", "n": 7.0})),
        (103, "plant", json!({"kind": "plant", "taste": "bitter"})),
    ] {
        let mut document = fake::document(seq, fields);
        (document.collection_id, document.document_id) = ("col_kinds".into(), format!("{kind}_{seq}"));
        fake.documents.push((document, Vectors::new()));
    }
    fake
}
fn joined(parameters: Value) -> Execution {
    let mut all = json!({"target_collection_id": "kinds", "source_field": "kind", "target_field": "kind"});
    all.as_object_mut().unwrap().extend(parameters.as_object().cloned().unwrap());
    let mut body = json!({"stages": scan(all, "document_enrich")});
    body["collection_identifiers"] = json!(["fruit"]);
    run(&two_collections(), &parsed(body).unwrap(), request(json!({}))).unwrap()
}

#[test]
fn another_collection_s_fields_join_by_equal_values() {
    let fields = |made: &Execution, seq: i64| -> Map<String, Value> {
        made.hits.iter().find(|hit| hit.document.seq == seq).unwrap().document.fields.clone()
    };
    let root = joined(json!({}));
    assert_eq!(root.hits.len(), 6);
    assert_eq!((&fields(&root, 1)["taste"], &fields(&root, 1)["n"]), (&json!("sweet"), &json!(5)), "what joins wins");
    assert!(fields(&root, 5).get("taste").is_none(), "a stone is of no kind that is known");
    assert_eq!(root.hits[0].document.document_id, "doc_1");
    assert_eq!(root.stages[1].metadata["matched"], 5);
    let some =
        joined(json!({"fields_to_merge": ["taste", "facts.oven"], "output_field": "about", "allow_missing": false}));
    assert_eq!(some.hits.len(), 5);
    assert_eq!(fields(&some, 1)["about"], json!({"taste": "sweet", "facts": {"oven": true}}));
    let many = joined(json!({"output_field": "all", "multiple": true, "fields_to_merge": ["document_id"]}));
    assert_eq!(fields(&many, 2)["all"], json!([{"document_id": "plant_102"}, {"document_id": "plant_103"}]));
    let appended =
        joined(json!({"output_field": "text", "strategy": "append", "fields_to_merge": ["taste"], "limit": 1}));
    assert_eq!(fields(&appended, 2)["text"], json!(["apple tree", {"taste": "green"}]));
    let replaced = joined(json!({"strategy": "replace", "fields_to_merge": ["taste"]}));
    assert_eq!(fields(&replaced, 1), json!({"taste": "sweet"}).as_object().cloned().unwrap());
    let by_number = joined(json!({"source_field": "n", "target_field": "n", "fields_to_merge": ["taste"]}));
    assert_eq!(fields(&by_number, 3)["taste"], "green", "7 is 7.0");
    let some = joined(
        json!({"when": {"field": "kind", "operator": "ne", "value": "cake"}, "fields_to_merge": ["taste"], "allow_missing": false}),
    );
    assert!(fields(&some, 1).get("taste").is_none() && fields(&some, 2).get("taste").is_some());
    assert_eq!(some.hits.len(), 5, "what is not meant passes, the stone goes");
}

#[test]
fn a_join_that_cannot_be_is_refused() {
    assert!(refused(scan(json!({}), "document_enrich")).contains("parameters.target_collection_id"));
    let both = json!({"target_collection_id": "kinds", "retriever_id": "ret_1"});
    assert!(refused(scan(both, "document_enrich")).contains("name one of them"));
    let list = scan(json!({"target_collection_id": "fruit", "multiple": true}), "document_enrich");
    assert!(failed(list, json!({})).contains("output_field"));
    let unknown = scan(json!({"target_collection_id": "nobody", "source_field": "kind"}), "document_enrich");
    assert!(failed(unknown, json!({})).contains("`nobody`"));
    assert!(nothing("document_enrich", json!({"target_collection_id": "fruit"})).hits.is_empty());
}
