//! From a failed login to a dropped packet, and back: what the project is for.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use serde_json::{Value, json};
use xdpban_tests::{Lab, Login, Outcome, Side};

const ATTACKER: &str = "10.99.66.66";

/// The names of an object's fields, sorted.
fn fields(object: &Value) -> Vec<&str> {
    let mut fields: Vec<&str> = object.as_object().into_iter().flatten().map(|(name, _)| &**name).collect();
    fields.sort_unstable();
    fields
}

#[test]
fn the_attacker_is_blocked_and_the_bystander_is_not() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&lab.config())?;
    assert!(lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    assert_eq!(lab.targets()?, [""; 0]);

    lab.attack(Side::Attacker.v4())?;
    let logged = Instant::now();
    let entry = lab.blocked(ATTACKER)?;
    assert!(logged.elapsed() < Duration::from_secs(1), "blocked after {:?}", logged.elapsed());
    assert_eq!(entry["rule"]["id"], 5710, "{entry}");

    let stream = lab.stream(Side::Attacker, Side::Attacker.v4(), Duration::from_millis(1))?;
    let dropped = |lab: &Lab| Ok::<_, anyhow::Error>(lab.blocked(ATTACKER)?["dropped_packets"].as_u64());
    let before = dropped(&lab)?;
    lab.eventually("100 more packets are dropped", Duration::from_secs(5), |lab| {
        Ok(dropped(lab)? > before.map(|before| before + 100))
    })?;
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    assert_eq!(stream.received(), 0);

    assert!(lab.login_ok(Side::Bystander)?);
    assert!(lab.login_ok_from(Side::Bystander, Side::Bystander.v6())?);
    assert_eq!(lab.targets()?, [ATTACKER]);
    Ok(())
}

#[test]
fn without_a_configuration_it_finds_interface_and_log_by_itself() -> Result<()> {
    let lab = Lab::new()?;
    let controller = lab.start_controller_with(&["run"])?;
    let said = controller.output()?;
    for text in [
        "configuration: none; the defaults hold",
        "guards eth0 in mode native",
        "watches /var/log/auth.log",
        "on 5710: blocks the source for 1 min 40 s",
        "never blocks loopback and link-local addresses; this host's 10.99.0.2, ",
        "the default gateway 10.99.0.1, ",
        "the name servers 10.99.0.53",
    ] {
        assert!(said.contains(text), "{text}\n{said}");
    }
    lab.attack(Side::Attacker.v4())?;
    lab.blocked(ATTACKER)?;
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    assert!(lab.login_ok(Side::Bystander)?);
    Ok(())
}

#[test]
fn an_ipv6_source_is_blocked_with_its_network() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&lab.config())?;
    let neighbour: IpAddr = "2001:db8:99:66::dead".parse()?;
    let other_network: IpAddr = "2001:db8:99:67::66".parse()?;
    lab.add_address(Side::Attacker, neighbour)?;
    lab.add_address(Side::Attacker, other_network)?;

    lab.attack(Side::Attacker.v6())?;
    lab.blocked("2001:db8:99:66::/64")?;
    for (from, passes) in
        [(Side::Attacker.v6(), false), (neighbour, false), (other_network, true), (Side::Attacker.v4(), true)]
    {
        assert_eq!(lab.tcp_connect(Side::Attacker, from, 22)?, passes, "{from}");
    }
    assert!(lab.login_ok_from(Side::Bystander, Side::Bystander.v6())?);
    assert_eq!(lab.show(&neighbour.to_string())?["verdict"], "drop");
    Ok(())
}

#[test]
fn an_ipv6_source_in_the_hosts_own_network_is_blocked_alone() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&lab.config())?;
    let attacker: IpAddr = "2001:db8:99::666".parse()?;
    let neighbour: IpAddr = "2001:db8:99::777".parse()?;
    lab.add_address(Side::Bystander, neighbour)?;

    lab.attack(attacker)?;
    lab.blocked("2001:db8:99::666")?;
    assert!(!lab.tcp_connect(Side::Attacker, attacker, 22)?);
    assert!(lab.tcp_connect(Side::Bystander, neighbour, 22)?);
    assert_eq!(lab.targets()?, ["2001:db8:99::666"]);
    Ok(())
}

#[test]
fn the_length_of_an_ipv6_network_can_be_chosen() -> Result<()> {
    let lab = Lab::new()?;
    for (length, source, target) in [
        (128, "2001:db8:99:70::7", "2001:db8:99:70::7"),
        (60, "2001:db8:99:71::7", "2001:db8:99:70::/60"),
        // The host itself lies in this one.
        (48, "2001:db8:99:82::7", "2001:db8:99:82::7"),
    ] {
        let controller = lab.start_controller(&format!("ipv6_prefix = {length}\n{}", lab.config()))?;
        lab.attack(source.parse()?)?;
        lab.blocked(target)?;
        assert!(!lab.tcp_connect(Side::Attacker, source.parse()?, 22)?);
        assert!(lab.login_ok_from(Side::Bystander, Side::Bystander.v6())?);
        controller.stop()?;
    }
    Ok(())
}

#[test]
fn without_a_timeout_a_block_lasts_until_it_is_lifted() -> Result<()> {
    let lab = Lab::new()?;
    let config = lab.config() + "[[response]]\ngroups = [\"invalid_login\"]\naction = \"block\"\n";
    let controller = lab.start_controller(&config)?;
    lab.attack(Side::Attacker.v4())?;
    let entry = lab.blocked(ATTACKER)?;
    assert_eq!((&entry["expires_at"], &entry["expires_in_s"]), (&Value::Null, &Value::Null), "{entry}");
    lab.xdpban(&["list"])?.stdout_has("until unblocked")?;
    controller.stop()?;
    lab.xdpban(&["detach"])?.success()?;
    let _controller = lab.start_controller(&config)?;
    assert_eq!(lab.blocked(ATTACKER)?["expires_at"], Value::Null);
    lab.xdpban(&["unblock", ATTACKER])?.success()?;
    assert!(lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    Ok(())
}

#[test]
fn eight_wrong_passwords_are_too_many_and_seven_are_not() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&lab.config())?;
    let guess = |times| {
        let login = Login::PasswordTimes("wrong", times);
        lab.start_login(Side::Attacker, Side::Attacker.v4(), "alice", &login)
    };
    assert_eq!(guess(4)?.outcome()?, Outcome::Denied);
    assert_eq!(guess(3)?.outcome()?, Outcome::Denied);
    lab.has_read_the_log()?;
    assert_eq!(lab.targets()?, [""; 0]);

    let _eighth = guess(1)?;
    let entry = lab.blocked(ATTACKER)?;
    assert_eq!(entry["rule"]["id"], 5763, "{entry}");
    assert_eq!(entry["expires_in_s"], 600, "{entry}");
    let incidents = &lab.show(ATTACKER)?["incidents"];
    assert_eq!(incidents[0]["users"], json!(["alice"]), "{incidents}");
    assert_eq!(incidents[0]["attempts"], 8, "{incidents}");
    Ok(())
}

#[test]
fn a_block_ends_when_its_time_is_over() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&lab.config_with_timeout("2s"))?;
    let start = Instant::now();
    lab.attack(Side::Attacker.v4())?;
    lab.blocked(ATTACKER)?;
    let blocked = Instant::now();
    let stream = lab.stream(Side::Attacker, Side::Attacker.v4(), Duration::from_millis(5))?;
    lab.eventually("a datagram gets through", Duration::from_secs(5), |_| Ok(stream.received() > 0))?;
    assert!(start.elapsed() > Duration::from_secs(2), "after {:?}", start.elapsed());
    assert!(blocked.elapsed() < Duration::from_secs(3), "after {:?}", blocked.elapsed());

    lab.eventually("it is off the list", Duration::from_secs(1), |lab| Ok(lab.targets()?.is_empty()))?;
    assert!(lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    let show = lab.show(ATTACKER)?;
    assert_eq!((&show["verdict"], &show["entry"]), (&json!("pass"), &Value::Null), "{show}");
    assert_eq!(show["incidents"][0]["outcome"], "expired", "{show}");
    assert!(show["incidents"][0]["dropped_packets"].as_u64() > Some(100), "{show}");
    Ok(())
}

#[test]
fn who_comes_again_is_blocked_for_longer() -> Result<()> {
    let lab = Lab::new()?;
    let config = lab.config_with_timeout("1s") + "repeat_offenders = [\"1h\"]\n";
    let _controller = lab.start_controller(&config)?;
    lab.attack(Side::Attacker.v4())?;
    assert_eq!(lab.blocked(ATTACKER)?["offences"], 1);
    lab.eventually("the attacker is free", Duration::from_secs(5), |lab| {
        Ok(lab.targets()?.is_empty() && lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?)
    })?;

    lab.attack(Side::Attacker.v4())?;
    let entry = lab.blocked(ATTACKER)?;
    assert_eq!(entry["offences"], 2, "{entry}");
    assert_eq!(entry["expires_in_s"], 3600, "{entry}");
    let outcomes = &lab.show(ATTACKER)?["incidents"];
    assert_eq!((&outcomes[0]["outcome"], &outcomes[1]["outcome"]), (&json!("expired"), &json!("in_force")));
    Ok(())
}

#[test]
fn what_is_dropped_is_counted_to_the_packet() -> Result<()> {
    const COUNT: u64 = 10_000;
    // The payload of the lab's datagrams, and the headers of Ethernet, IP and UDP.
    const BYTES: [u64; 2] = [8 + 14 + 20 + 8, 8 + 14 + 40 + 8];
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&lab.config())?;
    for (address, bytes) in ["10.99.70.1", "2001:db8:99:70::1"].into_iter().zip(BYTES) {
        let from: IpAddr = address.parse()?;
        lab.add_address(Side::Attacker, from)?;
        // Whoever does not know the host's hardware address yet sends less than they want to.
        assert_eq!(lab.flood(Side::Attacker, from, 1)?, 1);
        lab.xdpban(&["block", address])?.success()?;
        let before = lab.blocked(address)?;
        assert_eq!(lab.flood(Side::Attacker, from, COUNT)?, 0);
        let after = lab.blocked(address)?;
        let grown = |field: &str| Some(after[field].as_u64()? - before[field].as_u64()?);
        assert_eq!(grown("dropped_packets"), Some(COUNT), "{before} {after}");
        assert_eq!(grown("dropped_bytes"), Some(COUNT * bytes), "{before} {after}");
    }
    let status = lab.status()?;
    assert!(status["packets"]["dropped"].as_u64() >= Some(2 * COUNT), "{status}");
    Ok(())
}

#[test]
fn what_json_says_has_the_promised_fields() -> Result<()> {
    let lab = Lab::new()?;
    let controller = lab.start_controller(&lab.config())?;
    lab.attack(Side::Attacker.v4())?;
    let entry = lab.blocked(ATTACKER)?;
    let entry_fields = [
        "action",
        "created_at",
        "dropped_bytes",
        "dropped_packets",
        "enforced",
        "expires_at",
        "expires_in_s",
        "measure",
        "offences",
        "origin",
        "reason",
        "rule",
        "target",
    ];
    assert_eq!(fields(&entry), entry_fields);
    let rule = json!({ "id": 5710, "level": 5, "description": "login as a user that does not exist" });
    assert_eq!(entry["rule"], rule);
    assert_eq!((&entry["action"], &entry["origin"]), (&json!("block"), &json!("rule")));
    assert_eq!(entry["offences"], 1);
    assert!(matches!(entry["expires_in_s"].as_u64(), Some(98..=100)), "{entry}");
    let times = [&entry["created_at"], &entry["expires_at"]].map(|time| time.as_str().map(str::parse));
    let [Some(Ok(created)), Some(Ok(expires))]: [Option<Result<jiff::Timestamp, _>>; 2] = times else {
        panic!("not RFC 3339: {entry}");
    };
    assert_eq!(expires.duration_since(created).as_secs(), 100, "{entry}");

    let mut show = Value::Null;
    lab.eventually("the incident is on record", Duration::from_secs(2), |lab| {
        show = lab.show(ATTACKER)?;
        Ok(show["incidents"][0].is_object())
    })?;
    assert_eq!(fields(&show), ["because", "entry", "evidence", "incidents", "resting", "target", "verdict"]);
    assert_eq!((&show["target"], &show["verdict"]), (&json!(ATTACKER), &json!("drop")));
    assert_eq!(show["because"], "rule 5710: login as a user that does not exist");
    assert_eq!(fields(&show["entry"]), entry_fields);
    let evidence = show["evidence"][0].as_str().context("evidence")?;
    assert!(evidence.contains("Invalid user admin from 10.99.66.66 port "), "{evidence}");
    let incident = &show["incidents"][0];
    let incident_fields = [
        "action",
        "attempts",
        "command",
        "dropped_bytes",
        "dropped_packets",
        "dry_run",
        "evidence",
        "expires_at",
        "first_drop_at",
        "first_seen",
        "id",
        "last_drop_at",
        "last_seen",
        "line_to_block_ms",
        "measure",
        "offences",
        "origin",
        "outcome",
        "outcome_at",
        "outcome_reason",
        "outcome_uid",
        "reason",
        "record",
        "responded_at",
        "rule",
        "target",
        "timeout_s",
        "uid",
        "users",
    ];
    assert_eq!(fields(incident), incident_fields);
    assert_eq!((&incident["outcome"], &incident["outcome_at"]), (&json!("in_force"), &Value::Null));
    assert_eq!((&incident["timeout_s"], &incident["users"]), (&json!(100), &json!(["admin"])));
    assert!(incident["line_to_block_ms"].as_f64().is_some_and(|ms| ms > 0.0 && ms < 1000.0), "{incident}");

    let status = lab.status()?;
    for field in
        ["version", "pid", "uptime_s", "interfaces", "sources", "blocked", "packets", "memory", "health"]
    {
        assert!(fields(&status).contains(&field), "{field}: {status}");
    }
    assert_eq!(status["pid"], controller.pid());
    assert_eq!(status["interfaces"], json!([{ "name": "eth0", "mode": "native", "attached": true }]));
    assert_eq!(status["blocked"], json!({ "v4": 1, "v6": 0, "prefixes": 0 }));
    assert_eq!(status["health"], json!([]));
    let source = &status["sources"][0];
    assert_eq!((&source["kind"], &source["path"]), (&json!("file"), &json!(lab.log().path())));
    assert!(source["lines"].as_u64() > Some(0) && source["attacks"].as_u64() > Some(0), "{source}");
    assert!(source["position"].is_string(), "{source}");
    Ok(())
}

#[test]
fn what_people_read_is_aligned_and_says_it_all() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&lab.config())?;
    let list = lab.xdpban(&["list"])?;
    assert_eq!(list.stdout(), "nothing is blocked\n");

    lab.attack(Side::Attacker.v4())?;
    lab.blocked(ATTACKER)?;
    lab.xdpban(&["block", "2001:db8:77::/48", "--reason", "a bad neighbourhood"])?.success()?;
    let list = lab.xdpban(&["list"])?;
    list.stdout_has("10.99.66.66       5710 login as a user that does not exist  1 min ")?
        .stdout_has("2001:db8:77::/48  a bad neighbourhood                       until unblocked")?
        .stdout_has(" dropped\n")?;
    let ends: Vec<_> = list.stdout().lines().filter_map(|line| line.find(" dropped")).collect();
    assert_eq!(ends.len(), 2, "{list}");
    lab.xdpban(&["show", ATTACKER])?
        .success()?
        .stdout_has("10.99.66.66 is dropped: rule 5710: login as a user that does not exist\n")?
        .stdout_has("Invalid user admin from 10.99.66.66 port ")?;
    lab.xdpban(&["show", "10.99.10.10"])?.success()?.stdout_has("10.99.10.10 passes: ")?;
    lab.xdpban(&["status"])?
        .success()?
        .stdout_has("guarded in the driver (XDP)")?
        .stdout_has("1 IPv4 address, 0 of IPv6, 1 other prefix")?
        .stdout_has("all is well")?;

    lab.xdpban(&["unblock", ATTACKER])?.success()?.stdout_has("1 target unblocked\n")?;
    assert!(lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    let lifted = &lab.show(ATTACKER)?["incidents"][0];
    assert_eq!(lifted["outcome"], "lifted", "{lifted}");
    Ok(())
}
