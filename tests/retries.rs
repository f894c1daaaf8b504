//! Requests that are sent again by configuration: on statuses, with bodies that were kept, of methods that are not idempotent; and the budget
//! that ends it. What is sent again without any of these settings is in `retry.rs`.

mod support;

use std::time::Duration;

use support::{Config, Mode, Origin, Proxy, Served, Wire, eventually, in_each_mode};

in_each_mode!(
    a_status_sends_the_request_to_another_server,
    statuses_that_are_not_listed_go_to_the_client,
    a_post_that_got_a_status_is_not_sent_again,
    a_post_is_sent_again_where_the_configuration_allows_it,
    no_server_gets_a_request_twice,
    the_last_answer_goes_to_the_client,
    an_answer_that_was_put_aside_goes_out_whole,
    an_answer_that_was_put_aside_outlives_a_dead_server,
    an_answer_that_was_put_aside_and_cut_off_is_not_whole,
    an_answer_that_is_not_needed_leaves_its_connection,
    an_answer_that_was_put_aside_keeps_its_server_busy,
    an_answer_that_comes_before_the_body_has_ended_goes_to_the_client,
    a_kept_body_is_sent_again,
    a_body_that_is_not_kept_is_not_sent_again,
    the_budget_ends_a_storm,
    without_a_budget_there_is_no_end,
    connect_failures_need_no_budget,
);

const ADMIN: &str = "[admin]\naddress = \"127.0.0.1:0\"";
const ON_5XX: &str = "retry_statuses = \"502-504\"";

fn answer(status: u16, body: &str) -> Vec<u8> {
    format!(
        "HTTP/1.1 {status} X\r\nContent-Length: {}\r\nX-Body: {body}\r\n\r\n{body}",
        body.len()
    )
    .into_bytes()
}

/// An origin that answers everything with this.
fn always(status: u16, body: &'static str) -> Served {
    Origin::bind().serve(move |request| {
        let mut answer = answer(status, body);
        if request.method == "HEAD" {
            answer.truncate(answer.len() - body.len());
        }
        answer
    })
}

/// A proxy that tries the servers in their order.
fn in_order(mode: Mode, servers: &[&str], settings: &str) -> Proxy {
    Config::new(mode)
        .tables(ADMIN)
        .upstream(servers, &format!("policy = \"first\"\n{settings}"))
        .start()
}

fn a_status_sends_the_request_to_another_server(mode: Mode) {
    let (ill, well) = (always(503, "ill"), Origin::serve_text("well"));
    let proxy = in_order(mode, &[&ill.address, &well.address], ON_5XX);
    let mut client = proxy.connect();
    for method in ["GET", "HEAD", "PUT", "DELETE", "OPTIONS"] {
        client.send(format!(
            "{method} /{method} HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
        ));
        assert_eq!(client.response(method).status, 200, "{method}");
        assert_eq!(ill.last_request().body, b"hi");
        assert_eq!(well.last_request().body, b"hi", "the same request again");
    }
    assert_eq!(ill.targets(), well.targets());
    assert_eq!(ill.connections(), 1, "its connection was kept");

    let upstream = proxy.upstream();
    assert_eq!(upstream["servers"][0]["retries"]["status"], 5);
    assert_eq!(upstream["servers"][1]["retries"]["status"], 0);
    assert_eq!(upstream["retries"]["status"], 5);
    assert_eq!(upstream["servers"][0]["responses"]["5xx"], 5);
    let metric =
        "ringlane_upstream_retries_total{upstream=\"app\",server=\"a\",reason=\"status\"} 5";
    assert!(proxy.page("/metrics").contains(metric));
}

fn statuses_that_are_not_listed_go_to_the_client(mode: Mode) {
    let (ill, well) = (always(500, "ill"), Origin::serve_text("well"));
    let proxy = in_order(mode, &[&ill.address, &well.address], ON_5XX);
    assert_eq!(proxy.get("/").status, 500);
    let off = in_order(mode, &[&ill.address, &well.address], "");
    assert_eq!(off.get("/").status, 500);
    assert!(well.requests().is_empty());
}

fn a_post_that_got_a_status_is_not_sent_again(mode: Mode) {
    let (ill, well) = (always(503, "ill"), Origin::serve_text("well"));
    let settings = format!("{ON_5XX}\nretry_body_bytes = \"1KiB\"");
    let proxy = in_order(mode, &[&ill.address, &well.address], &settings);
    let mut client = proxy.connect();
    for method in ["POST", "PATCH", "CUSTOM"] {
        client.send(format!(
            "{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi"
        ));
        let response = client.response(method);
        assert_eq!((response.status, response.text().as_str()), (503, "ill"));
    }
    assert!(well.requests().is_empty());
}

fn a_post_is_sent_again_where_the_configuration_allows_it(mode: Mode) {
    let (ill, well) = (always(503, "ill"), Origin::serve_text("well"));
    let settings = format!("{ON_5XX}\nretry_non_idempotent = true");
    let proxy = in_order(mode, &[&ill.address, &well.address], &settings);
    let mut client = proxy.connect();
    client.send("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi");
    assert_eq!(client.response("POST").text(), "well");
    assert_eq!(well.only_request().body, b"hi");
}

fn no_server_gets_a_request_twice(mode: Mode) {
    let hash = "hash\"\nhash = \"query:key";
    let policies = [
        "round_robin",
        "least_connections",
        "random",
        "two_choices",
        "first",
        "least_latency",
        "ip_hash",
        hash,
    ];
    for policy in policies {
        let ill = ["a", "b", "c"].map(|body| always(503, body));
        let addresses = [&*ill[0].address, &*ill[1].address, &*ill[2].address];
        let settings = format!("policy = \"{policy}\"\nretries = 9\nretry_statuses = \"5xx\"");
        let proxy = Config::new(mode).upstream(&addresses, &settings).start();
        let response = proxy.get("/?key=x");
        assert_eq!(response.status, 503);
        for origin in &ill {
            origin.only_request();
        }
    }
}

fn the_last_answer_goes_to_the_client(mode: Mode) {
    let ill = [always(503, "first"), always(504, "second")];
    let proxy = in_order(mode, &[&ill[0].address, &ill[1].address], ON_5XX);
    let mut client = proxy.connect();
    for method in ["GET", "HEAD", "GET"] {
        client.send(format!("{method} / HTTP/1.1\r\nHost: a\r\n\r\n"));
        let response = client.response(method);
        assert_eq!(response.status, 504);
        assert_eq!(response.head.value("X-Body"), Some("second"));
    }
    let single = in_order(mode, &[&ill[0].address], ON_5XX);
    assert_eq!(single.get("/").text(), "first", "there is no other server");
}

/// Longer than what comes with a head, in each framing.
fn an_answer_that_was_put_aside_goes_out_whole(mode: Mode) {
    let body = "x".repeat(400_000);
    let chunks = format!("{:x}\r\n{}\r\n", 100_000, &body[..100_000]).repeat(4);
    for framing in [
        format!("Content-Length: {}\r\n\r\n{body}", body.len()),
        format!("Transfer-Encoding: chunked\r\n\r\n{chunks}0\r\n\r\n"),
        format!("Connection: close\r\n\r\n{body}"),
    ] {
        let ill = Origin::bind().serve(move |_| format!("HTTP/1.1 503 X\r\n{framing}").into());
        let proxy = in_order(mode, &[&ill.address, &Origin::nowhere()], ON_5XX);
        let mut client = proxy.connect();
        for _ in 0..2 {
            let response = client.get("/");
            assert_eq!((response.status, response.body.len()), (503, body.len()));
        }
        let upstream = proxy.upstream();
        assert_eq!(upstream["servers"][0]["active"], 0);
        assert_eq!(upstream["servers"][1]["failures"]["connect_refused"], 2);
    }
}

fn an_answer_that_was_put_aside_outlives_a_dead_server(mode: Mode) {
    let ill = always(503, "ill");
    let dying = Origin::bind().serve(|_| Vec::new());
    let settings = format!("{ON_5XX}\nretries = 3");
    let servers = [&*ill.address, &dying.address, &Origin::nowhere()];
    let proxy = in_order(mode, &servers, &settings);
    let mut client = proxy.connect();
    for _ in 0..3 {
        assert_eq!(client.get("/").text(), "ill");
    }
    assert_eq!(dying.requests().len(), 3);
    let upstream = proxy.upstream();
    assert_eq!(upstream["retries"]["status"], 3);
    assert_eq!(upstream["retries"]["closed"], 3);
    assert_eq!(upstream["servers"][1]["retries"]["closed"], 3);
    assert_eq!(upstream["retries"]["connect"], 0, "nothing followed it");
}

/// The server answers without having read all of the request, so its close is a reset: nobody knows whether the answer was whole.
fn an_answer_that_was_put_aside_and_cut_off_is_not_whole(mode: Mode) {
    let hasty = Origin::bind_narrow();
    let settings = format!("{ON_5XX}\nsend_buffer = 4096");
    let proxy = in_order(mode, &[&hasty.address, &Origin::nowhere()], &settings);
    let body = "x".repeat(15_000);
    let mut client = proxy.connect();
    client.send(format!(
        "PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n{body}",
        body.len()
    ));
    let mut upstream = hasty.accept();
    upstream.send("HTTP/1.1 503 X\r\nConnection: close\r\n\r\nhalf of it");
    std::thread::sleep(Duration::from_millis(200));
    drop(upstream);
    let (answer, _) = client.read_to_end();
    let answer = String::from_utf8_lossy(&answer);
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(!answer.ends_with("0\r\n\r\n"), "{answer}");
}

/// When the better answer begins, not when it ends. Whoever waits for the connection gets it then.
fn an_answer_that_is_not_needed_leaves_its_connection(mode: Mode) {
    let single = Origin::bind().serve(|request| match request.target.as_str() {
        "/first" => answer(503, "ill"),
        _ => answer(200, "well"),
    });
    let long = Origin::bind();
    let servers = [&single.address, &long.address]
        .map(|address| format!("{{ address = \"{address}\", max_connections = 1 }}"));
    let proxy = Config::new(mode)
        .tables(ADMIN)
        .tables(&format!(
            "[[upstream]]\nname = \"app\"\npolicy = \"first\"\nqueue = 1\nqueue_timeout = \"1m\"\n{ON_5XX}\n\
             server = [{}]",
            servers.join(", ")
        ))
        .start();
    for better in [
        "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 10\r\n\r\n",
        "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
    ] {
        let mut client = proxy.connect();
        client.send("GET /first HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
        let mut upstream = long.accept();
        upstream.request();
        let mut waiting = proxy.connect();
        waiting.send("GET /second HTTP/1.1\r\nHost: a\r\n\r\n");
        eventually("the second request waits", || {
            proxy.upstream()["queue"]["length"] == 1
        });
        upstream.send(better);
        client.read_until(b"\r\n\r\n");
        assert_eq!(waiting.response("GET").text(), "well", "{better}");
        upstream.send("0123456789");
        client.expect("0123456789");
        drop((client, upstream));
        eventually("the long answer's connection is closed", || {
            proxy.server(1)["open"] == 0
        });
    }
    assert_eq!(single.connections(), 1);
}

/// Its server still sends the rest: whoever waits for that to end must not stop it.
fn an_answer_that_was_put_aside_keeps_its_server_busy(mode: Mode) {
    let (ill, silent) = (Origin::bind(), Origin::bind());
    let servers = [&ill.address, &silent.address]
        .map(|address| format!("{{ address = \"{address}\", max_requests = 1 }}"));
    let proxy = Config::new(mode)
        .tables(ADMIN)
        .tables(&format!(
            "[[upstream]]\nname = \"app\"\npolicy = \"first\"\n{ON_5XX}\nserver = [{}]",
            servers.join(", ")
        ))
        .start();
    let active = |index: usize| proxy.server(index)["active"].as_u64();
    for better in [Some(answer(200, "well")), None] {
        let (mut client, mut first) = proxy.reach(&ill);
        first.send("HTTP/1.1 503 X\r\nConnection: close\r\nContent-Length: 4\r\n\r\nil");
        let mut second = silent.accept();
        second.request();
        assert_eq!((active(0), active(1)), (Some(1), Some(1)));
        assert_eq!(proxy.get("/").status, 503, "there is no room");
        if let Some(better) = better {
            second.send(better);
            assert_eq!(client.response("GET").text(), "well");
        } else {
            drop(second);
            client.read_until(b"il");
            assert_eq!(active(0), Some(1));
            first.send("l.");
            client.expect("l.");
        }
        eventually("both have room again", || {
            (active(0), active(1)) == (Some(0), Some(0))
        });
    }
}

fn an_answer_that_comes_before_the_body_has_ended_goes_to_the_client(mode: Mode) {
    let (early, well) = (Origin::bind(), Origin::serve_text("well"));
    let settings = format!("{ON_5XX}\nretry_body_bytes = \"1KiB\"");
    let proxy = in_order(mode, &[&early.address, &well.address], &settings);
    let mut client = proxy.connect();
    client.send("PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    let mut upstream = early.accept();
    upstream.request_head();
    upstream.expect("hello");
    upstream.send(answer(503, "no more"));
    assert_eq!(client.response("PUT").text(), "no more");
    assert!(well.requests().is_empty());
}

/// Sends a request whose body comes later, to a server that takes all of it and closes; gives what the client then gets.
fn late_body(proxy: &Proxy, dying: &Origin, method: &str, chunked: bool, body: &str) -> u16 {
    let mut client = proxy.connect();
    let framing = if chunked {
        "Transfer-Encoding: chunked".to_owned()
    } else {
        format!("Content-Length: {}", body.len())
    };
    client.send(format!(
        "{method} / HTTP/1.1\r\nHost: a\r\n{framing}\r\n\r\n"
    ));
    let mut upstream = dying.accept();
    let mut request = upstream.request_head();
    let (first, second) = body.split_at(body.len() / 2);
    for part in [first, second] {
        client.send(if chunked {
            format!("{:x}\r\n{part}\r\n", part.len())
        } else {
            part.to_owned()
        });
        std::thread::sleep(Duration::from_millis(20));
    }
    if chunked {
        client.send("0\r\n\r\n");
    }
    request.read_body(&mut upstream).expect("a whole body");
    assert!(
        request.body == body.as_bytes(),
        "another body than was sent"
    );
    drop(upstream);
    client.response(method).status
}

fn a_kept_body_is_sent_again(mode: Mode) {
    let body = "0123456789".repeat(6000);
    let cases = [("PUT", ""), ("POST", "retry_non_idempotent = true")];
    for (method, setting) in cases {
        for (chunked, length) in [(false, 100), (true, 100), (false, 60_000), (true, 60_000)] {
            let (dying, well) = (Origin::bind(), Origin::serve_text("well"));
            let settings = format!("{setting}\nretry_body_bytes = {length}");
            let proxy = in_order(mode, &[&dying.address, &well.address], &settings);
            let status = late_body(&proxy, &dying, method, chunked, &body[..length]);
            assert_eq!(status, 200, "{method} of {length}, chunked: {chunked}");
            let request = well.only_request();
            assert!(request.body == body.as_bytes()[..length], "cut or changed");
        }
    }
}

fn a_body_that_is_not_kept_is_not_sent_again(mode: Mode) {
    let cases = [
        ("PUT", "", "no body is kept"),
        ("PUT", "retry_body_bytes = 99", "it is longer"),
        (
            "POST",
            "retry_body_bytes = 100",
            "it may have been acted on",
        ),
    ];
    for (method, settings, why) in cases {
        for chunked in [false, true] {
            let (dying, well) = (Origin::bind(), Origin::serve_text("well"));
            let proxy = in_order(mode, &[&dying.address, &well.address], settings);
            let body = "0123456789".repeat(10);
            let status = late_body(&proxy, &dying, method, chunked, &body);
            assert_eq!(status, 502, "{why}");
            assert!(well.requests().is_empty(), "{why}");
        }
    }
}

/// So many requests to two servers that answer 503 to all of them: how many the servers got.
fn storm(mode: Mode, budget: &str, requests: usize) -> (usize, Proxy) {
    let ill = [always(503, "ill"), always(503, "ill")];
    let proxy = Config::new(mode)
        .tables(ADMIN)
        .upstream(
            &[&ill[0].address, &ill[1].address],
            &format!("{ON_5XX}\n{budget}"),
        )
        .start();
    let mut client: Wire = proxy.connect();
    for _ in 0..requests {
        let response = client.get("/");
        assert_eq!((response.status, response.text().as_str()), (503, "ill"));
    }
    (
        ill.iter().map(|origin| origin.requests().len()).sum(),
        proxy,
    )
}

fn the_budget_ends_a_storm(mode: Mode) {
    let (attempts, proxy) = storm(mode, "retry_budget = 10", 400);
    // A tenth, the reserve of ten, and what of it comes back in the seconds that the test may take.
    assert!((410..=480).contains(&attempts), "{attempts} for 400");
    let upstream = proxy.upstream();
    let retries = attempts as u64 - 400;
    assert_eq!(upstream["retries"]["status"], retries);
    assert_eq!(upstream["retries_refused"], 400 - retries);
}

fn without_a_budget_there_is_no_end(mode: Mode) {
    let (attempts, proxy) = storm(mode, "retry_budget = \"off\"", 60);
    assert_eq!(attempts, 120);
    assert_eq!(proxy.upstream()["retries_refused"], 0);
}

fn connect_failures_need_no_budget(mode: Mode) {
    let well = Origin::serve_text("well");
    let proxy = in_order(
        mode,
        &[&Origin::nowhere(), &well.address],
        "retry_budget = 1",
    );
    let mut client = proxy.connect();
    for _ in 0..60 {
        assert_eq!(client.get("/").text(), "well");
    }
    assert_eq!(proxy.upstream()["servers"][0]["retries"]["connect"], 60);
}
