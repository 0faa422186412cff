//! Rows of databases outside in retrievers: a SQLite file, and a real PostgreSQL where the machine has one.

use crate::support::postgres::{PASSWORD, Postgres};
use crate::support::{Answer, Api, Server};
use serde_json::{Value, json};
use strata_store::catalog::rusqlite::Connection;

const CONNECTIONS: &str = "/v1/organizations/connections";

/// A namespace with documents that name a product each.
fn shop(admin: &Api) -> Api {
    admin
        .post(
            "/v1/namespaces/standalone",
            json!({ "namespace_id": "shop", "vector_configs": [{ "name": "look", "dimension": 2 }] }),
        )
        .ok();
    let api = admin.within("shop");
    let one = |id: u32, sku: &str| json!({ "document_id": format!("d{id}"), "vectors": { "look": [1.0, id] }, "payload": { "sku": sku, "n": id } });
    let documents = [one(1, "A-1"), one(2, "B-2"), one(3, "none"), one(4, "x' OR '1'='1")];
    api.post(
        "/v1/namespaces/shop/documents/upsert",
        json!({ "documents": documents, "options": { "write_token": true } }),
    )
    .ok();
    api
}

fn lookup(parameters: Value) -> Value {
    json!({ "stage_name": "rows", "stage_type": "apply", "config": { "stage_id": "sql_lookup", "parameters": parameters } })
}

/// Executes a search for everything and a lookup.
fn joined(api: &Api, parameters: Value) -> Answer {
    let all = json!({ "stage_name": "all", "config": { "stage_id": "attribute_filter", "parameters": { "field": "n", "operator": "gt", "value": 0 } } });
    let sorted = json!({ "stage_name": "sorted", "config": { "stage_id": "sort_attribute", "parameters": { "field": "n" , "direction": "asc" } } });
    api.post("/v1/retrievers/execute", json!({ "inputs": { "q": "x" }, "stages": [all, sorted, lookup(parameters)] }))
}

/// Executes a lookup alone.
fn alone(api: &Api, parameters: Value) -> Answer {
    api.post("/v1/retrievers/execute", json!({ "inputs": {}, "stages": [lookup(parameters)] }))
}

#[test]
fn a_sqlite_file_is_read_through_a_connection() {
    let files = tempfile::tempdir().expect("temporary directory");
    let file = Connection::open(files.path().join("shop.db")).expect("a database");
    file.execute_batch(
        "CREATE TABLE products (sku TEXT, name TEXT, price REAL); INSERT INTO products VALUES ('A-1', 'apple pie', 2.5), ('B-2', 'pear', 1);",
    )
    .expect("a table");
    let server = Server::start_with(&["--sql-files", files.path().to_str().expect("a path")]);
    let admin = server.api();
    let api = shop(&admin);
    let config = json!({ "path": "shop.db" });
    let made = admin
        .post(CONNECTIONS, json!({ "name": "products", "provider_type": "sqlite", "provider_config": config }))
        .ok();
    let id = made["connection_id"].as_str().expect("an id");
    assert!(id.starts_with("conn_") && made["last_used_at"].is_null(), "{made}");
    let test = admin.post(&format!("{CONNECTIONS}/{id}/test"), json!({})).ok();
    assert_eq!((&test["success"], &test["details"]["tables"]), (&json!(true), &json!(1)), "{test}");

    let parameters = json!({ "connection_id": id, "query": "SELECT name, price FROM products WHERE sku = :sku", "parameters": { "sku": "{{DOC.sku}}" }, "output_field": "product" });
    let answer = joined(&api, parameters.clone()).ok();
    let hits = answer["documents"].as_array().expect("documents");
    assert_eq!(hits[0]["product"], json!({ "name": "apple pie", "price": 2.5 }), "{answer}");
    assert!(hits[2].get("product").is_none() && hits[3].get("product").is_none(), "a value is no SQL: {answer}");

    let stored = json!({ "retriever_name": "products", "stages": [lookup(json!({ "connection_id": "products", "query": "SELECT sku, name FROM products ORDER BY sku" }))] });
    let retriever = api.post("/v1/retrievers", stored).text("/retriever_id").to_owned();
    let execute = |api: &Api| api.post(&format!("/v1/retrievers/{retriever}/execute"), json!({ "inputs": {} }));
    let rows = execute(&api).ok();
    assert_eq!(
        (rows["documents"].as_array().map(Vec::len), &rows["documents"][1]["name"]),
        (Some(2), &json!("pear")),
        "{rows}"
    );
    assert!(admin.get(&format!("{CONNECTIONS}/products")).ok()["last_used_at"].is_string());
    // What is in the file now counts, not what was there when the same was asked before.
    file.execute("INSERT INTO products VALUES ('C-3', 'plum', 3)", []).expect("a row");
    assert_eq!(execute(&api).ok()["documents"].as_array().map(Vec::len), Some(3));

    for (query, word) in [
        ("DELETE FROM products", "one SELECT"),
        ("WITH x AS (SELECT 1) DELETE FROM products", "may only read"),
        ("SELECT nobody FROM products", "no such column"),
        (
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT max(i) FROM n",
            "did not end within 1 s",
        ),
    ] {
        let refused = alone(&api, json!({ "connection_id": id, "query": query, "on_error": "raise", "timeout": 1 }));
        assert!(refused.status == 422 && refused.body.to_string().contains(word), "{query}: {}", refused.body);
    }
    for path in ["../../etc/passwd", "/etc/passwd", "none.db"] {
        let refused = admin.post(
            CONNECTIONS,
            json!({ "name": "other", "provider_type": "sqlite", "provider_config": { "path": path } }),
        );
        assert!(
            refused.status == 422 && refused.body.to_string().contains("provider_config.path"),
            "{path}: {}",
            refused.body
        );
    }
    admin.send("PATCH", &format!("{CONNECTIONS}/{id}"), Some(&json!({ "is_active": false }))).ok();
    let off = alone(&api, json!({ "connection_id": id, "query": "SELECT 1", "on_error": "raise" }));
    assert!(off.status == 422 && off.body.to_string().contains("switched off"), "{}", off.body);
    admin.delete(&format!("{CONNECTIONS}/{id}")).ok();
    let gone = execute(&api).ok();
    assert!(gone["warnings"].to_string().contains("does not exist"), "{gone}");
    let unknown = api.post(
        "/v1/retrievers",
        json!({ "retriever_name": "other", "stages": [lookup(json!({ "connection_id": id, "query": "SELECT 1" }))] }),
    );
    assert!(
        unknown.status == 422 && unknown.body.to_string().contains("stages.0.config.parameters.connection_id"),
        "{}",
        unknown.body
    );
}

fn config(postgres: &Postgres) -> Value {
    json!({
        "host": "localhost", "port": postgres.port(), "database": "postgres", "ssl_mode": "disable",
        "credentials": { "type": "username_password", "username": "owner", "password": PASSWORD },
    })
}

#[test]
fn postgresql_is_read_and_nothing_else() {
    let Some(postgres) = Postgres::start() else { return };
    postgres.sql(
        "CREATE TYPE mood AS ENUM ('good', 'bad'); CREATE DOMAIN money_of_shop AS numeric(20, 10);
         CREATE TABLE products (sku text, name text, price numeric(40, 20), sold bigint, ratio float8, flag bool, made timestamptz, day date,
            facts jsonb, id uuid, tags text[], raw bytea, mood mood, span int4range, cost money_of_shop);
         INSERT INTO products VALUES
            ('A-1', 'apple pie', 12345678901.12345678901234567890, 9007199254740993, 0.5, true, '2026-01-02T03:04:05Z', '2026-01-02',
             '{\"a\": [1]}', '00000000-0000-4000-8000-000000000001', '{a,b}', '\\x0102', 'good', '[1,5)', 1.5),
            ('B-2', 'pear', NULL, 2, 'NaN', false, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL, NULL);",
    );
    let guarded = Server::start();
    let refused = guarded
        .api()
        .post(CONNECTIONS, json!({ "name": "x", "provider_type": "postgresql", "provider_config": config(&postgres) }));
    assert!(refused.status == 422 && refused.body.to_string().contains("not a public address"), "{}", refused.body);

    let server = Server::start_with(&["--allow-private-urls"]);
    let admin = server.api();
    let api = shop(&admin);
    let made = admin.post(
        CONNECTIONS,
        json!({ "name": "products", "provider_type": "postgresql", "provider_config": config(&postgres) }),
    );
    let made = made.ok();
    let id = made["connection_id"].as_str().expect("an id").to_owned();
    assert_eq!(
        made["provider_config"]["credentials"],
        json!({ "type": "username_password", "username": "owner", "password": "********" })
    );
    let test = admin.post(&format!("{CONNECTIONS}/{id}/test"), json!({})).ok();
    assert!(test["success"] == true && test["details"]["server_version"].is_string(), "{test}");

    let parameters = json!({ "connection_id": id, "query": "SELECT * FROM products WHERE sku = $sku", "parameters": { "sku": "{{DOC.sku}}" }, "output_field": "product" });
    let answer = joined(&api, parameters).ok();
    assert_eq!(
        answer["documents"][0]["product"],
        json!({
            "sku": "A-1", "name": "apple pie", "price": "12345678901.12345678901234567890", "sold": 9_007_199_254_740_993_i64, "ratio": 0.5,
            "flag": true, "made": "2026-01-02T03:04:05+00:00", "day": "2026-01-02", "facts": { "a": [1] }, "id": "00000000-0000-4000-8000-000000000001",
            "tags": ["a", "b"], "raw": "AQI=", "mood": "good", "span": "[1,5)", "cost": "1.5000000000",
        }),
        "{answer}"
    );
    assert_eq!(answer["documents"][1]["product"]["ratio"], "NaN");
    assert!(answer["documents"][3].get("product").is_none(), "a value is no SQL: {answer}");

    let rows = |query: &str, parameters: Value| {
        alone(&api, json!({ "connection_id": id, "query": query, "parameters": parameters, "on_error": "raise" }))
    };
    let typed = rows(
        "SELECT count(*) AS n FROM products WHERE sku = ANY(:skus) AND sold = :sold AND flag = :flag AND facts @> :facts AND made < :at -- end",
        json!({ "skus": ["A-1", "x\",\"y"], "sold": 9_007_199_254_740_993_i64, "flag": true, "facts": { "a": [1] }, "at": "2026-02-01" }),
    );
    assert_eq!(typed.ok()["documents"][0]["n"], 1);
    assert_eq!(
        rows("SELECT 1 AS a, 2 AS a, :x::int AS c", json!({ "x": null })).ok()["documents"][0]["c"],
        Value::Null
    );
    let many = rows("SELECT i FROM generate_series(1, 5000) AS i ORDER BY i DESC", json!({})).ok();
    assert_eq!(
        (many["documents"][0]["i"].clone(), &many["limits"][0]["name"]),
        (json!(5000), &json!("rows")),
        "{}",
        many["limits"]
    );

    for (query, word) in [
        ("WITH gone AS (DELETE FROM products RETURNING *) SELECT * FROM gone", "WITH"),
        ("SELECT set_config('transaction_read_only', 'off', false)", "read-write"),
        ("SELECT nextval('counter')", "read-only"),
        ("SELECT 1 FROM products FOR UPDATE", "read-only"),
        ("SELECT 1) AS q; DROP TABLE products; SELECT (1", "one statement"),
        ("SELECT 1) AS q UNION SELECT (2", "syntax error"),
        ("SELECT * FROM nobody", "does not exist"),
        ("SELECT sku FROM products WHERE sold = :x", "invalid input syntax"),
        ("SELECT repeat('x', 10000000)", "more than 4194304 bytes"),
        ("SELECT 1 / 0", "division by zero"),
    ] {
        postgres.sql("CREATE SEQUENCE IF NOT EXISTS counter");
        let parameters = if query.contains(":x") { json!({ "x": "many" }) } else { json!({}) };
        let refused = rows(query, parameters);
        assert!(
            matches!(refused.status, 413 | 422) && refused.body.to_string().contains(word),
            "{query}: {}",
            refused.body
        );
    }
    assert_eq!(postgres.sql("SELECT count(*) FROM products"), "2");
    // Some versions let this through a transaction that reads only; it is rolled back all the same.
    rows("SELECT lo_create(0)", json!({}));
    assert_eq!(postgres.sql("SELECT count(*) FROM pg_largeobject_metadata"), "0");

    let slow =
        alone(&api, json!({ "connection_id": id, "query": "SELECT pg_sleep(60)", "timeout": 1, "on_error": "raise" }));
    assert!(slow.status == 422 && slow.body.to_string().contains("too long"), "{}", slow.body);
    assert_eq!(postgres.sql("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%' AND state = 'active' AND pid <> pg_backend_pid()"), "0");
    rows("SELECT pg_advisory_lock(1)", json!({})).ok();
    assert_eq!(
        postgres.sql("SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"),
        "0",
        "a lock does not outlive its query"
    );
    let open: u32 = postgres
        .sql("SELECT count(*) FROM pg_stat_activity WHERE application_name = 'strata'")
        .parse()
        .expect("a number");
    assert!(open <= 4, "{open} connections are open");

    let logs = format!(
        "{} {} {}",
        server.log_text(),
        admin.post(&format!("{CONNECTIONS}/list"), json!({})).body,
        admin.get(&format!("{CONNECTIONS}/{id}")).body
    );
    assert!(!logs.contains(PASSWORD));
}

#[test]
fn a_connection_to_postgresql_is_kept_safe() {
    let Some(postgres) = Postgres::start() else { return };
    let server = Server::start_with(&["--allow-private-urls"]);
    let admin = server.api();
    let create = |name: &str, change: Value| {
        let mut config = config(&postgres);
        config.as_object_mut().expect("an object").extend(change.as_object().expect("an object").clone());
        admin.post(CONNECTIONS, json!({ "name": name, "provider_type": "postgresql", "provider_config": config }))
    };
    let wrong = create("wrong", json!({ "credentials": { "username": "owner", "password": "guess" } }));
    assert!(wrong.status == 422 && wrong.body.to_string().contains("password authentication failed"), "{}", wrong.body);
    for (name, mode) in [("plain", "disable"), ("preferred", "prefer"), ("required", "require")] {
        create(name, json!({ "ssl_mode": mode })).ok();
    }
    let unknown = create("verified", json!({ "ssl_mode": "verify-full" }));
    assert!(unknown.status == 422 && unknown.body.to_string().contains("certificate"), "{}", unknown.body);
    let trusted = json!({ "ssl_mode": "verify-full", "ssl_root_certificate": postgres.certificate() });
    create("verified", trusted.clone()).ok();
    let mut by_address = trusted;
    by_address["host"] = json!("127.0.0.1");
    assert_eq!(create("other", by_address).status, 422, "the certificate names another host");
    let api = shop(&admin);
    let uses_tls = |connection: &str| {
        let query = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";
        alone(&api, json!({ "connection_id": connection, "query": query, "on_error": "raise" })).ok()["documents"][0]["ssl"].clone()
    };
    assert_eq!(
        ["plain", "preferred", "required", "verified"].map(uses_tls),
        [false, true, true, true].map(Value::from)
    );

    let patch = |body: Value| admin.send("PATCH", &format!("{CONNECTIONS}/plain"), Some(&body));
    let masked = json!({ "username": "owner", "password": "********" });
    for config in
        [json!({ "host": "evil.example.com" }), json!({ "host": "evil.example.com", "credentials": masked.clone() })]
    {
        let elsewhere = patch(json!({ "provider_config": config }));
        assert!(
            elsewhere.status == 422 && elsewhere.body.to_string().contains("provider_config.credentials"),
            "{}",
            elsewhere.body
        );
    }
    let renamed = patch(json!({ "provider_config": { "schema": "public" }, "description": "the shop" })).ok();
    assert_eq!(
        (&renamed["description"], &renamed["provider_config"]["credentials"]["username"]),
        (&json!("the shop"), &json!("owner"))
    );
    assert_eq!(uses_tls("plain"), false, "the password is still known");
    patch(json!({ "provider_config": { "credentials": masked } })).ok();
    assert_eq!(uses_tls("plain"), false);
    postgres.sql("ALTER USER owner PASSWORD 'changed'");
    let failed = admin.post(&format!("{CONNECTIONS}/plain/test"), json!({})).ok();
    assert!(failed["success"] == false && failed["message"].to_string().contains("password"), "{failed}");
    let told = admin.get(&format!("{CONNECTIONS}/plain")).ok();
    assert!(told["consecutive_failures"] == 1 && told["last_error"].is_string(), "{told}");
}
