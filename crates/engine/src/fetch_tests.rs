use super::*;
use std::io::{Read, Write};
use std::net::TcpListener;

/// A server that gives every request the answer that `answer` makes of its path; answers its address.
fn server(answer: impl Fn(&str) -> String + Send + 'static) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0u8; 4096];
            let read = stream.read(&mut request).unwrap();
            let request = String::from_utf8_lossy(&request[..read]).into_owned();
            let path = request.split(' ').nth(1).unwrap_or("/");
            // The client may have gone already when the size was too much for it.
            drop(stream.write_all(answer(path).as_bytes()));
        }
    });
    format!("http://{address}")
}

fn page(body: &str) -> String {
    format!(
        "HTTP/1.1 200 OK\r\nContent-Type: Text/Plain; charset=utf-8\r\nConnection: close\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

fn redirect(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nLocation: {to}\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")
}

#[tokio::test]
async fn content_comes_with_its_type_and_name_through_redirects() {
    let url = server(|path| match path {
        "/old" => redirect("/new/a%20b.txt?x=1"),
        _ => page("hello"),
    });
    let fetched = Fetcher::new(true).unwrap().fetch(&format!("{url}/old"), 5).await.unwrap();
    assert_eq!(fetched.bytes, "hello");
    assert_eq!(fetched.media_type.as_deref(), Some("text/plain"));
    assert_eq!(fetched.filename.as_deref(), Some("a b.txt"));
}

#[tokio::test]
async fn too_much_is_refused_whether_promised_or_not() {
    let url = server(|path| match path {
        "/promised" => page("hello"),
        _ => "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nhello".into(),
    });
    for path in ["promised", "silent"] {
        let refused = Fetcher::new(true).unwrap().fetch(&format!("{url}/{path}"), 4).await;
        assert!(matches!(refused, Err(Error::TooLarge(_))), "{path}: {refused:?}");
    }
}

#[tokio::test]
async fn endless_redirects_errors_and_silence_are_the_other_sides_fault() {
    let url = server(|path| match path {
        "/loop" => redirect("/loop"),
        "/nowhere" => "HTTP/1.1 302 Found\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".into(),
        "/gone" => "HTTP/1.1 410 Gone\r\nConnection: close\r\nContent-Length: 0\r\n\r\n".into(),
        _ => String::new(),
    });
    for path in ["loop", "nowhere", "gone", "silence"] {
        let failed = Fetcher::new(true).unwrap().fetch(&format!("{url}/{path}"), 100).await;
        assert!(matches!(failed, Err(Error::Upstream(_))), "{path}: {failed:?}");
    }
}

#[tokio::test]
async fn addresses_that_are_not_public_are_refused_in_every_spelling() {
    let reached = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let seen = reached.clone();
    let url = server(move |_| {
        seen.store(true, std::sync::atomic::Ordering::SeqCst);
        page("secret")
    });
    let port = url.rsplit(':').next().unwrap().to_owned();
    let fetcher = Fetcher::new(false).unwrap();
    for host in [
        "127.0.0.1",
        "localhost",
        "0x7f.1",
        "2130706433",
        "0177.0.0.1",
        "127.1",
        "0",
        "[::1]",
        "[::]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[64:ff9b::7f00:1]",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "[fd00::1]",
        "[fe80::1]",
        "[fd00:ec2::254]",
        "[2002:7f00:1::]",
        "224.0.0.1",
        "255.255.255.255",
        "127.0.0.1.",
        "LOCALHOST",
    ] {
        let refused = fetcher.fetch(&format!("http://{host}:{port}/"), 100).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{host}: {refused:?}");
    }
    assert!(!reached.load(std::sync::atomic::Ordering::SeqCst), "nothing was sent");
}

#[tokio::test]
async fn a_redirect_to_a_private_address_is_refused_after_a_public_one() {
    let guarded = Fetcher::new(false).unwrap();
    let public = Url::parse("https://example.org/a").unwrap();
    for location in ["http://127.0.0.1/", "http://[::1]/", "//169.254.169.254/latest", "file:///etc/passwd"] {
        let answer = redirecting_answer(location).await;
        assert!(matches!(guarded.next_hop(&public, &answer), Err(Error::Invalid(_))), "{location}");
    }
    assert_eq!(guarded.next_hop(&public, &redirecting_answer("b").await).unwrap().as_str(), "https://example.org/b");
}

async fn redirecting_answer(location: &str) -> Response {
    let answer = redirect(location);
    let url = server(move |_| answer.clone());
    Fetcher::new(true).unwrap().client.get(url).send().await.unwrap()
}

#[tokio::test]
async fn only_plain_http_urls_are_fetched() {
    let fetcher = Fetcher::new(true).unwrap();
    for url in [
        "file:///etc/passwd",
        "ftp://example.org/x",
        "http://user:pass@example.org/",
        "http://u@example.org/",
        "http://",
        "nonsense",
        "gopher://example.org/",
        "s3://bucket/key",
    ] {
        let refused = fetcher.fetch(url, 100).await;
        assert!(matches!(refused, Err(Error::Invalid(_))), "{url}: {refused:?}");
    }
}

#[test]
fn public_addresses_are_public() {
    for ip in ["8.8.8.8", "93.184.216.34", "2606:2800:220:1:248:1893:25c8:1946", "2002:808:808::", "64:ff9b::808:808"] {
        assert!(is_public(ip.parse().unwrap()), "{ip}");
    }
    for ip in ["192.0.2.1", "198.18.0.1", "2001:db8::1", "2001::1", "fec0::1", "ff02::1", "0.0.0.0", "::7f00:1"] {
        assert!(!is_public(ip.parse().unwrap()), "{ip}");
    }
}

/// A server that answers what it was sent.
fn mirror() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = Vec::new();
            let mut piece = [0u8; 4096];
            while !request.windows(4).any(|end| end == b"\r\n\r\n") {
                let read = stream.read(&mut piece).unwrap();
                request.extend_from_slice(&piece[..read]);
            }
            let text = String::from_utf8_lossy(&request).into_owned();
            let answer = match text.split(' ').nth(1).unwrap_or("/") {
                path if path.starts_with("/to/") => {
                    redirect(&path[4..].replace("%3A", ":")).replace("302 Found", "307 Temporary Redirect")
                }
                path if path.starts_with("/see/") => redirect(&path[5..]),
                "/slow" => {
                    std::thread::sleep(Duration::from_secs(3));
                    String::new()
                }
                "/gone" => page(&text).replace("200 OK", "404 Not Found"),
                _ => page(&text),
            };
            drop(stream.write_all(answer.as_bytes()));
        }
    });
    format!("http://{address}")
}

fn post(url: &str) -> Request {
    Request {
        method: Method::POST,
        url: url.to_owned(),
        headers: HeaderMap::from_iter([(header::AUTHORIZATION, "Bearer s3cret".parse().unwrap())]),
        body: Some("body".into()),
        domains: Vec::new(),
        follows: true,
        max_bytes: 10_000,
        timeout: Duration::from_secs(2),
    }
}

async fn sent(request: Request) -> Result<String> {
    let answer = Fetcher::new(true)?.send(request).await?;
    Ok(format!("{} {}", answer.status, String::from_utf8_lossy(&answer.body)))
}

#[tokio::test]
async fn a_request_is_sent_as_composed_and_any_status_is_an_answer() {
    let url = mirror();
    let text = sent(post(&format!("{url}/a?b=c"))).await.unwrap();
    assert!(text.starts_with("200 POST /a?b=c ") && text.contains("authorization: Bearer s3cret"), "{text}");
    assert!(sent(post(&format!("{url}/gone"))).await.unwrap().starts_with("404 "));
    let small = Request { max_bytes: 10, ..post(&url) };
    assert!(matches!(sent(small).await, Err(Error::TooLarge(_))));
    let slow = Request { timeout: Duration::from_millis(200), ..post(&format!("{url}/slow")) };
    assert!(sent(slow).await.unwrap_err().to_string().contains("within 0.2 s"));
}

#[tokio::test]
async fn what_a_caller_sends_does_not_follow_a_redirect_to_another_server() {
    let (here, there) = (mirror(), mirror());
    let same = sent(post(&format!("{here}/to//b"))).await.unwrap();
    assert!(same.contains("POST /b ") && same.contains("s3cret"), "{same}");
    let changed = sent(post(&format!("{here}/see//b"))).await.unwrap();
    assert!(
        changed.contains("GET /b ") && changed.contains("s3cret") && !changed.contains("content-length"),
        "{changed}"
    );
    let other = sent(post(&format!("{here}/see/{there}/b"))).await.unwrap();
    assert!(other.contains("GET /b ") && !other.contains("s3cret"), "{other}");
    let body = sent(post(&format!("{here}/to/{there}/b"))).await;
    assert!(matches!(body, Err(Error::Upstream(message)) if message.contains("another server")));
}

#[tokio::test]
async fn only_allowed_domains_are_asked_by_redirects_too() {
    let (here, there) = (mirror(), mirror());
    let host = |url: &str| url.trim_start_matches("http://").to_owned();
    let asked = |url: String, domains: Vec<String>| sent(Request { domains, ..post(&url) });
    assert!(asked(format!("{here}/a"), vec![host(&here)]).await.is_ok());
    assert!(asked(format!("{here}/see/{there}/b"), vec![host(&here), host(&there)]).await.is_ok());
    for (url, domains) in [
        (format!("{here}/a"), vec![host(&there)]),
        (format!("{here}/see/{there}/b"), vec![host(&here)]),
        (format!("{here}/a"), vec!["example.com".into()]),
    ] {
        assert!(matches!(asked(url.clone(), domains).await, Err(Error::Invalid(_))), "{url}");
    }
    let private = Fetcher::new(false).unwrap().send(Request { domains: vec![host(&here)], ..post(&here) }).await;
    assert!(matches!(private, Err(Error::Invalid(_))), "an allowed domain is no way to a private address");
}

#[test]
fn a_star_stands_for_every_subdomain() {
    let url = |text: &str| Url::parse(text).unwrap();
    for (address, domain, within) in [
        ("https://api.example.com/", "api.example.com", true),
        ("https://API.example.com./", "api.example.com", true),
        ("https://api.example.com:8443/", "api.example.com", true),
        ("https://api.example.com:8443/", "api.example.com:443", false),
        ("https://api.example.com/", "api.example.com:443", true),
        ("https://evil-api.example.com/", "api.example.com", false),
        ("https://a.b.example.com/", "*.example.com", true),
        ("https://example.com/", "*.example.com", false),
        ("https://evilexample.com/", "*.example.com", false),
        ("https://example.com.evil.org/", "*.example.com", false),
        ("https://example.com@evil.org/", "example.com", false),
        ("http://[::1]:9/", "[::1]:9", true),
    ] {
        assert_eq!(is_within(&url(address), domain), within, "{address} {domain}");
    }
}
