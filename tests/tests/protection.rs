//! Never the wrong address: what the host needs, who is logged in, and what a client chooses.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::Result;
use serde_json::{Value, json};
use xdpban_tests::{Controller, Lab, Login, Side};

const ATTACKER: &str = "10.99.66.66";

/// A host with networks on its allowlist.
fn start(lab: &Lab) -> Result<Controller> {
    let allow = "[allow]\nnetworks = [\"10.99.77.0/24\", \"2001:db8:99:77::/64\"]\n";
    lab.start_controller(&format!("{}{allow}", lab.config()))
}

/// What is never blocked, and a word of the reason.
const PROTECTED: [(&str, &str); 17] = [
    ("10.99.0.2", "an address of this host"),
    ("2001:db8:99::2", "an address of this host"),
    ("::ffff:10.99.0.2", "an address of this host"),
    ("10.99.0.1", "this host's default gateway"),
    ("2001:db8:99::1", "this host's default gateway"),
    ("10.99.0.53", "a name server of this host"),
    ("127.0.0.1", "loopback"),
    ("127.8.8.8", "loopback"),
    ("::1", "loopback"),
    ("169.254.169.254", "link-local"),
    ("fe80::1", "link-local"),
    ("224.0.0.1", "multicast"),
    ("255.255.255.255", "broadcast"),
    ("0.0.0.0", "unspecified"),
    ("10.99.77.7", "it lies in 10.99.77.0/24, which is on the allowlist"),
    ("2001:db8:99:77::7", "it lies in 2001:db8:99:77::/64, which is on the allowlist"),
    ("10.99.77.0/25", "it lies in 10.99.77.0/24, which is on the allowlist"),
];

#[test]
fn what_the_host_needs_cannot_be_blocked_by_hand() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = start(&lab)?;
    for (target, why) in PROTECTED {
        lab.xdpban(&["block", target])?.expect_code(1)?.stderr_has("is never blocked")?.stderr_has(why)?;
    }
    for (prefix, why) in [
        ("10.99.0.0/16", "it contains 10.99.0.2, which is an address of this host"),
        ("10.99.0.0/31", "it contains 10.99.0.1, which is this host's default gateway"),
        ("10.99.0.48/28", "it contains 10.99.0.53, which is a name server of this host"),
        ("10.99.76.0/23", "it contains 10.99.77.0/24, which is on the allowlist"),
        ("2001:db8:99::/64", "it contains 2001:db8:99::2, which is an address of this host"),
        ("2001:db8::/32", "it contains "),
        ("0.0.0.0/0", "it contains "),
        ("::/0", "it contains "),
    ] {
        lab.xdpban(&["block", prefix])?.expect_code(1)?.stderr_has(prefix)?.stderr_has(why)?;
    }
    // The others of a list are blocked all the same.
    lab.xdpban(&["block", "10.99.0.1", "10.99.80.1", "127.0.0.1"])?
        .expect_code(1)?
        .stdout_has("1 target blocked until unblocked")?
        .stderr_has("1 done, 2 refused")?;
    assert_eq!(lab.targets()?, ["10.99.80.1"]);
    assert!(lab.login_ok(Side::Bystander)?);
    Ok(())
}

#[test]
fn what_the_host_needs_cannot_be_blocked_by_a_rule() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = start(&lab)?;
    let addresses = PROTECTED.iter().filter(|(target, _)| !target.contains('/'));
    for ((address, _), pid) in addresses.clone().zip(1000..) {
        lab.log().invalid_user(pid, address)?;
    }
    lab.log().invalid_user(2000, ATTACKER)?;
    lab.blocked(ATTACKER)?;
    assert_eq!(lab.targets()?, [ATTACKER]);
    for (address, why) in addresses {
        let show = lab.show(address)?;
        let because = show["because"].as_str().unwrap_or_default();
        assert!(show["verdict"] == "pass" && because.contains(why), "{show}");
        let incident = &show["incidents"][0];
        assert_eq!(incident["outcome"], "refused", "{show}");
        let reason = incident["outcome_reason"].as_str().unwrap_or_default();
        assert!(reason.contains("is never blocked") && reason.contains(why), "{show}");
        assert_eq!(incident["rule"]["id"], 5710, "{show}");
    }
    Ok(())
}

#[test]
fn a_source_on_the_allowlist_goes_on_failing() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = start(&lab)?;
    let from: IpAddr = "10.99.77.7".parse()?;
    for _ in 0..3 {
        lab.attack(from)?;
    }
    lab.attack(Side::Attacker.v4())?;
    lab.blocked(ATTACKER)?;
    assert_eq!(lab.targets()?, [ATTACKER]);
    assert!(lab.tcp_connect(Side::Attacker, from, 22)?);
    Ok(())
}

#[test]
fn no_user_name_passes_for_an_address() -> Result<()> {
    let lab = Lab::new()?;
    // Whatever sshd says of a failure is answered, were it only a reset connection.
    let every = "[[response]]\nlevel = 4\naction = \"block\"\ntimeout = \"1h\"\n";
    let _controller = lab.start_controller(&format!("{}{every}", lab.config()))?;
    let long = "x".repeat(10_000);
    let named = [
        "x from 8.8.8.8 port 22 ssh2",
        "x from 8.8.8.8 port 22",
        "Invalid user x from 8.8.8.8 port 22",
        "admin from 10.99.10.10 port 22",
        "root@192.0.2.1 [preauth]",
        "a\\nNov  3 08:05:01 guarded sshd[1]: Invalid user x from 8.8.8.8 port 22",
        "a#012Nov  3 08:05:01 guarded sshd[1]: Invalid user x from 8.8.8.8 port 22",
        "[preauth] rhost=8.8.8.8  user=root",
        "fe80::1%eth0 from 2001:db8:99:10::10 port 1 ssh2: RSA SHA256:x",
        "",
        " ",
        &long,
    ];
    // A newline does not get past every version of ssh.
    let newline = "a\nNov  3 08:05:01 guarded sshd[1]: Invalid user x from 8.8.8.8 port 22";
    let mut sources = Vec::new();
    let mut attempts = Vec::new();
    for (name, number) in named.into_iter().chain([newline]).zip(1_u8..) {
        let from = IpAddr::from([10, 99, 80, number]);
        lab.add_address(Side::Attacker, from)?;
        attempts.push(lab.start_login(Side::Attacker, from, name, &Login::Password("wrong"))?);
        sources.push(from.to_string());
    }
    for source in &sources[..named.len()] {
        lab.blocked(source)?;
    }
    drop(attempts);
    // An ordinary attack, so that what stood in the log before it has been read.
    lab.attack(Side::Attacker.v4())?;
    lab.blocked(ATTACKER)?;
    let targets = lab.targets()?;
    assert!(
        targets.iter().all(|target| target == ATTACKER || sources.contains(target)),
        "{targets:?}\n{}",
        lab.log().text()?
    );
    for innocent in ["8.8.8.8", "192.0.2.1", "10.99.10.10", "2001:db8:99:10::10"] {
        let show = lab.show(innocent)?;
        assert_eq!((&show["verdict"], &show["incidents"]), (&json!("pass"), &json!([])), "{show}");
    }
    assert!(lab.login_ok(Side::Bystander)?);
    Ok(())
}

/// Waits until rules have been kept from blocking the attacker for this reason, and returns the incident.
fn refused(lab: &Lab, reason: &str) -> Result<Value> {
    let mut found = Value::Null;
    lab.eventually(&format!("a refusal because of {reason}"), Duration::from_secs(5), |lab| {
        let incidents = &lab.show(ATTACKER)?["incidents"];
        let because =
            |incident: &&Value| incident["outcome_reason"].as_str().is_some_and(|r| r.contains(reason));
        let incident = incidents.as_array().into_iter().flatten().find(because);
        found = incident.cloned().unwrap_or_default();
        Ok(incident.is_some())
    })?;
    Ok(found)
}

#[test]
fn who_is_logged_in_is_not_blocked_by_rules_but_by_hand() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&lab.config())?;
    let session = lab.open_session(Side::Attacker, Side::Attacker.v4())?;
    lab.attack(Side::Attacker.v4())?;
    let incident = refused(&lab, "the source of a logged-in ssh session (protect_logins)")?;
    assert_eq!(incident["outcome"], "refused", "{incident}");
    assert_eq!(lab.targets()?, [""; 0]);
    assert_eq!(lab.show(ATTACKER)?["verdict"], "pass");
    assert!(lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);

    lab.xdpban(&["block", ATTACKER])?.success()?;
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    drop(session);
    Ok(())
}

#[test]
fn a_login_by_key_protects_for_the_next_hour_and_through_a_restart() -> Result<()> {
    let lab = Lab::new()?;
    let controller = lab.start_controller(&lab.config())?;
    assert!(lab.login_ok(Side::Attacker)?);
    let ended = "Disconnected from user alice 10.99.66.66";
    lab.eventually("the session ended", Duration::from_secs(5), |lab| Ok(lab.log().text()?.contains(ended)))?;
    lab.has_read_the_log()?;
    controller.kill9()?;

    let _controller = lab.start_controller(&lab.config())?;
    lab.attack(Side::Attacker.v4())?;
    let incident = refused(&lab, "a login by public key within the last hour (protect_logins)")?;
    assert_eq!(incident["outcome"], "refused", "{incident}");
    assert_eq!(lab.targets()?, [""; 0]);
    Ok(())
}

#[test]
fn an_ipv6_neighbour_of_who_is_logged_in_is_blocked_alone() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&lab.config())?;
    let _session = lab.open_session(Side::Bystander, Side::Bystander.v6())?;
    let neighbour: IpAddr = "2001:db8:99:10::bad".parse()?;
    lab.attack(neighbour)?;
    lab.blocked("2001:db8:99:10::bad")?;
    assert!(lab.login_ok_from(Side::Bystander, Side::Bystander.v6())?);
    Ok(())
}

#[test]
fn logins_protect_nobody_where_the_configuration_says_so() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&format!("protect_logins = false\n{}", lab.config()))?;
    let session = lab.open_session(Side::Attacker, Side::Attacker.v4())?;
    lab.attack(Side::Attacker.v4())?;
    lab.blocked(ATTACKER)?;
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    drop(session);
    Ok(())
}

#[test]
fn an_address_that_the_host_takes_on_is_freed() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&lab.config())?;
    lab.xdpban(&["block", "10.99.40.0/24", "10.99.41.1", "10.99.42.1"])?.success()?;
    lab.add_address(Side::Host, "10.99.40.7".parse()?)?;
    lab.sh("ip route replace default via 10.99.41.1")?;
    lab.eventually("both are lifted", Duration::from_secs(5), |lab| Ok(lab.targets()? == ["10.99.42.1"]))?;
    for (address, why) in [("10.99.40.7", "an address of this host"), ("10.99.41.1", "default gateway")] {
        let show = lab.show(address)?;
        assert_eq!(show["incidents"][0]["outcome"], "lifted", "{show}");
        let reason = show["incidents"][0]["outcome_reason"].as_str().unwrap_or_default();
        assert!(reason.contains(why), "{show}");
        lab.xdpban(&["block", address])?.expect_code(1)?.stderr_has(why)?;
    }
    Ok(())
}
