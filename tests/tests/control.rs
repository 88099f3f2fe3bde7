//! The control socket, as anything but xdpban's own command line may use it.

use std::fs::{self, Permissions};
use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use xdpban_tests::{Controller, Lab};

fn started() -> Result<(Lab, Controller)> {
    let lab = Lab::new()?;
    let controller = lab.start_controller(&lab.config())?;
    Ok((lab, controller))
}

/// Sends bytes; returns what comes back until the controller closes.
fn exchange(lab: &Lab, bytes: &[u8]) -> Result<String> {
    let mut stream = UnixStream::connect(lab.socket()).context("connect to the control socket")?;
    stream.set_read_timeout(Some(Duration::from_secs(5)))?;
    // The controller may answer and close before it has read all of it.
    stream.write_all(bytes).ok();
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer).ok();
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

/// Sends a request; returns the status, the headers and the body.
fn request(lab: &Lab, method: &str, path: &str, body: &str) -> Result<(u16, String, Value)> {
    let length = body.len();
    let request = format!(
        "{method} {path} HTTP/1.1\r\nHost: xdpban\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{body}"
    );
    let answer = exchange(lab, request.as_bytes())?;
    let (head, body) = answer.split_once("\r\n\r\n").with_context(|| format!("no HTTP: {answer:?}"))?;
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
    let body = serde_json::from_str(body).unwrap_or_else(|_| body.into());
    Ok((status.context("a status")?, head.to_lowercase(), body))
}

#[test]
fn what_is_asked_for_is_answered_in_json() -> Result<()> {
    let (lab, controller) = started()?;
    let body = r#"{"targets": ["192.0.2.1", "10.99.0.1"], "timeout_s": 60, "reason": "by curl"}"#;
    let (status, head, done) = request(&lab, "POST", "/v1/blocks", body)?;
    assert_eq!((status, &done["done"]), (200, &json!(1)), "{done}");
    assert!(head.contains("content-type: application/json"), "{head}");
    assert_eq!(done["refused"][0]["target"], "10.99.0.1");
    let (_, _, list) = request(&lab, "GET", "/v1/blocks", "")?;
    assert_eq!((&list[0]["target"], &list[0]["reason"]), (&json!("192.0.2.1"), &json!("by curl")));
    let (_, _, show) = request(&lab, "GET", "/v1/addresses/192.0.2.1", "")?;
    assert_eq!(show["verdict"], "drop");
    let (_, _, status) = request(&lab, "GET", "/v1/status", "")?;
    assert_eq!(status["pid"], controller.pid());
    let (_, _, done) = request(&lab, "DELETE", "/v1/blocks", r#"{"all": true}"#)?;
    assert_eq!(done, json!({ "done": 1, "refused": [] }));
    let (status, head, metrics) = request(&lab, "GET", "/metrics", "")?;
    assert!(status == 200 && head.contains("content-type: text/plain; version=0.0.4"), "{head}");
    for metric in ["xdpban_packets_total{", "xdpban_blocked{table=\"v4\"} 0", "xdpban_lines_total{source=\""]
    {
        assert!(metrics.as_str().is_some_and(|metrics| metrics.contains(metric)), "{metric}\n{metrics}");
    }
    Ok(())
}

#[test]
fn what_cannot_be_answered_is_refused_in_words() -> Result<()> {
    let (lab, controller) = started()?;
    let large = format!("{{\"targets\": [\"{}\"]}}", "1".repeat(5 << 20));
    let many = format!("{{\"targets\": [{}\"192.0.2.1\"]}}", "\"nonsense\", ".repeat(1000));
    for (method, path, body, status, word) in [
        ("GET", "/", "", 404, "no such route"),
        ("GET", "/v1/blocks/", "", 404, "no such route"),
        ("GET", "/../../etc/passwd", "", 404, "no such route"),
        ("PUT", "/v1/blocks", "", 405, "GET, POST, DELETE"),
        ("POST", "/v1/status", "", 405, "GET"),
        ("POST", "/metrics", "", 405, "GET"),
        ("DELETE", "/v1/addresses/192.0.2.1", "", 405, "GET"),
        ("GET", "/v1/addresses/nonsense", "", 400, "`nonsense` is not an IPv4 or IPv6 address"),
        ("POST", "/v1/blocks", "", 400, "body"),
        ("POST", "/v1/blocks", "{", 400, "body"),
        ("POST", "/v1/blocks", "{\"targets\": 7}", 400, "body"),
        ("POST", "/v1/blocks", "{\"targets\": [], \"nonsense\": 1}", 400, "unknown field `nonsense`"),
        ("POST", "/v1/blocks", "{\"targets\": [], \"timeout_s\": -1}", 400, "body"),
        ("POST", "/v1/blocks", &large, 413, "larger than 4194304 bytes"),
    ] {
        let (answered, head, answer) = request(&lab, method, path, body)?;
        assert_eq!(answered, status, "{method} {path}: {answer}");
        let error = answer["error"].as_str().unwrap_or_default();
        assert!(error.contains(word), "{method} {path}: {answer}");
        assert_eq!(status == 405, head.contains("\r\nallow: "), "{head}");
    }
    let (status, _, done) = request(&lab, "POST", "/v1/blocks", &many)?;
    assert_eq!((status, &done["done"]), (200, &json!(1)));
    assert_eq!(done["refused"].as_array().map(Vec::len), Some(1000));
    // No time is not a time, and the longest is as long as anybody lives.
    for timeout in ["0", "18446744073709551615"] {
        let body = format!("{{\"targets\": [\"192.0.2.9\"], \"timeout_s\": {timeout}}}");
        let (status, _, answer) = request(&lab, "POST", "/v1/blocks", &body)?;
        assert_eq!(status, 400, "{answer}");
    }
    assert_eq!(lab.targets()?, ["192.0.2.1"]);
    assert_eq!(lab.status()?["pid"], controller.pid());
    Ok(())
}

#[test]
fn garbage_does_no_harm() -> Result<()> {
    let (lab, controller) = started()?;
    let noise: Vec<u8> = (0..100_000_u32).map(|n| n.wrapping_mul(2_654_435_761).to_be_bytes()[0]).collect();
    for garbage in [
        &b""[..],
        b"\0",
        b"\r\n\r\n",
        b"GET",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/blocks HTTP/1.1\r\nContent-Length: nonsense\r\n\r\n",
        b"POST /v1/blocks HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nnonsense",
        &noise,
        &[b'A'; 1 << 20],
    ] {
        let mut stream = UnixStream::connect(lab.socket())?;
        stream.write_all(garbage).ok();
        drop(stream);
    }
    // Connections that say nothing, fewer than there is room for.
    let idle: Vec<_> = (0..50).map(|_| UnixStream::connect(lab.socket())).collect::<Result<_, _>>()?;
    assert_eq!(lab.status()?["pid"], controller.pid());
    drop(idle);
    lab.xdpban(&["block", "192.0.2.1"])?.success()?;
    Ok(())
}

#[test]
fn who_is_not_root_may_read_where_the_socket_lets_them_and_never_change() -> Result<()> {
    let (lab, _controller) = started()?;
    lab.xdpban(&["block", "192.0.2.1"])?.success()?;
    for args in [&["status"][..], &["list"], &["block", "192.0.2.2"]] {
        let denied = lab.xdpban_as_nobody(args)?;
        denied.expect_code(1)?.stderr_has("control.sock: permission denied. Run this as root")?;
    }
    fs::set_permissions(lab.socket(), Permissions::from_mode(0o666))?;
    lab.xdpban_as_nobody(&["list"])?.success()?.stdout_has("192.0.2.1")?;
    lab.xdpban_as_nobody(&["status"])?.success()?;
    for args in [&["block", "192.0.2.2"][..], &["unblock", "192.0.2.1"], &["unblock", "--all"]] {
        let refused = lab.xdpban_as_nobody(args)?;
        refused.expect_code(1)?.stderr_has("uid 65534 may read, but only root may change what is blocked")?;
    }
    assert_eq!(lab.targets()?, ["192.0.2.1"]);
    Ok(())
}
