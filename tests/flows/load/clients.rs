//! Clients that are slow, many, or send too much.

use super::{announce, connect, rest, status};
use crate::support::{Api, SOON, Server, wait_for};
use reqwest::blocking::Client;
use serde_json::json;
use std::io::Write;

/// How much the process may grow under any load of these tests.
const GROWTH: u64 = 512 << 20;

fn named(n: usize) -> serde_json::Value {
    json!({ "namespace_name": format!("number-{n}"), "feature_extractors": [] })
}

#[test]
fn slow_clients_are_cut_while_others_are_served() {
    let server = Server::start_configured("[load]\nclient_timeout_ms = 500\n");
    let mut slow: Vec<_> = (0..50).map(|_| connect(&server)).collect();
    for stream in &mut slow {
        stream.write_all(b"GET /v1/namespaces HTTP/1.1\r\nhost: st").expect("the server takes a part of a header");
    }
    let mut silent = connect(&server);
    let mut half = announce(&server, 1_000);
    for n in 0..10 {
        server.api().post("/v1/namespaces", named(n)).ok();
    }
    for stream in &mut slow {
        assert!([0, 408].contains(&status(&rest(stream))), "a header without an end is no request");
    }
    assert_eq!(status(&rest(&mut silent)), 0);
    let answer = rest(&mut half);
    assert_eq!(status(&answer), 408, "{answer}");
    assert!(answer.contains("TimeoutError"), "{answer}");
    assert_eq!(server.api().get("/v1/namespaces").status, 200);
}

#[test]
fn who_finds_no_place_is_told_when_to_come_again() {
    let server = Server::start_configured("[load]\nwrites = 1\nwaiting = 0\n");
    let api = server.api();
    let (mut holders, mut n) = (Vec::new(), 0);
    let refused = wait_for("the one place to be taken", SOON, || {
        n += 1;
        // One that comes while the place is taken is turned away itself.
        holders.push(announce(&server, 1_000));
        let response = api.respond("POST", "/v1/namespaces", &[], &named(n));
        (response.status() == 503).then_some(response)
    });
    assert_eq!(refused.headers()["retry-after"], "1");
    let body: serde_json::Value = refused.json().expect("the envelope");
    assert_eq!((&body["error"]["code"], &body["error"]["details"]["retryable"]), (&json!("overloaded"), &json!(true)));
    assert_eq!(api.get("/v1/namespaces").status, 200, "what reads has places of its own");
    for path in ["/v1/health", "/metrics"] {
        assert_eq!(api.get(path).status, 200, "{path} is always answered");
    }
    drop(holders);
    wait_for("the place to come free", SOON, || {
        n += 1;
        (api.post("/v1/namespaces", named(n)).status == 200).then_some(())
    });
}

#[test]
fn many_at_once_are_served_or_refused_and_memory_stays() {
    let server = Server::start_configured("[load]\nreads = 2\nwrites = 2\nwaiting = 4\nwait_ms = 20\n");
    server.api().post("/v1/namespaces", named(0)).ok();
    let before = server.resident_bytes();
    let ask = |api: &Api, n: usize| match n % 4 {
        0 => api.post("/v1/namespaces", named(n + 1)).status,
        _ => api.get("/v1/namespaces").status,
    };
    let statuses: Vec<u16> = std::thread::scope(|scope| {
        let server = &server;
        let clients: Vec<_> = (0..32)
            .map(|client| {
                scope.spawn(move || {
                    let api = server.api();
                    (0..40).map(|n| ask(&api, client * 40 + n)).collect::<Vec<u16>>()
                })
            })
            .collect();
        clients.into_iter().flat_map(|client| client.join().expect("a client ends well")).collect()
    });
    assert!(statuses.contains(&200));
    let others: Vec<&u16> = statuses.iter().filter(|status| ![200, 503].contains(*status)).collect();
    assert!(others.is_empty(), "{others:?}");
    assert!(server.resident_bytes() < before + GROWTH);
    wait_for("everything to be served again", SOON, || {
        (0..20).all(|n| ask(&server.api(), 2_000 + n) == 200 || n % 4 == 0).then_some(())
    });
}

#[test]
fn there_is_so_much_memory_for_bodies_and_no_more() {
    let server = Server::start_configured("[load]\nwait_ms = 100\nclient_timeout_ms = 3000\n");
    let before = server.resident_bytes();
    let mut large: Vec<_> = (0..8).map(|_| announce(&server, 60 << 20)).collect();
    let statuses: Vec<u16> = large.iter_mut().map(|stream| status(&rest(stream))).collect();
    assert!(statuses.iter().all(|status| [408, 503].contains(status)), "{statuses:?}");
    assert!(statuses.contains(&503), "four of them fit: {statuses:?}");
    assert!(server.resident_bytes() < before + GROWTH);
    server.api().post("/v1/namespaces", named(0)).ok();
}

#[test]
fn headers_and_bodies_have_a_largest_size() {
    let server = Server::start();
    let mut many = connect(&server);
    let lines: String = (0..150).map(|n| format!("x-{n}: 1\r\n")).collect();
    many.write_all(format!("GET /v1/health HTTP/1.1\r\nhost: strata\r\n{lines}\r\n").as_bytes()).expect("written");
    assert_eq!(status(&rest(&mut many)), 431);
    let mut long = connect(&server);
    let value = "x".repeat(80 << 10);
    // The server may close before all of it is written.
    drop(long.write_all(format!("GET /v1/health HTTP/1.1\r\nhost: strata\r\nx-long: {value}\r\n\r\n").as_bytes()));
    assert!([0, 431].contains(&status(&rest(&mut long))));
    let mut huge = announce(&server, 1 << 30);
    assert_eq!(status(&rest(&mut huge)), 413);
    assert_eq!(server.api().get("/v1/health").status, 200);
}

#[test]
fn connections_beyond_the_bound_are_turned_away() {
    let server = Server::start_configured("[load]\nconnections = 3\nclient_timeout_ms = 2000\n");
    let client = Client::builder().pool_max_idle_per_host(0).build().expect("an HTTP client");
    let health = format!("{}/v1/health", server.url());
    let mut held = Vec::new();
    wait_for("the places to be taken", SOON, || {
        held.push(connect(&server));
        let answer = client.get(&health).send();
        // A connection may be closed before its request is read.
        answer.map_or(true, |answer| answer.status() == 503).then_some(())
    });
    drop(held);
    wait_for("the places to come free", SOON, || {
        client.get(&health).send().is_ok_and(|answer| answer.status() == 200).then_some(())
    });
}
