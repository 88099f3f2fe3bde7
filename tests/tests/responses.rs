//! Responses other than the plain block of one source.

use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Result, bail};
use serde_json::{Value, json};
use xdpban_tests::{Lab, Side};

const ATTACKER: &str = "10.99.66.66";
const OTHER: &str = "10.99.66.67";

#[test]
fn hosts_that_keep_offending_get_their_network_blocked() -> Result<()> {
    let lab = Lab::new()?;
    let response =
        "[[response]]\nrules = [5710]\ntimeout = \"1h\"\naggregate = { v4 = 24, v6 = 56, hosts = 3 }\n";
    let controller = lab.start_controller(&(lab.config() + response))?;
    let bystander: IpAddr = "10.99.66.99".parse()?;
    lab.add_address(Side::Attacker, bystander)?;
    for (pid, host) in (1..).zip(["10.99.66.1", "10.99.66.2", "10.99.70.3"]) {
        lab.log().invalid_user(pid, host)?;
        lab.blocked(host)?;
    }
    assert!(lab.tcp_connect(Side::Attacker, bystander, 22)?, "two hosts are not enough");
    // Those before a restart count.
    controller.kill9()?;
    let _controller = lab.start_controller_with(&["run"])?;
    lab.log().invalid_user(9, ATTACKER)?;
    let entry = lab.blocked("10.99.66.0/24")?;
    assert_eq!(
        entry["reason"],
        "3 sources within 10.99.66.0/24 attacked: 10.99.66.1, 10.99.66.2, 10.99.66.66; all 256 addresses of it are blocked with them"
    );
    assert!(!lab.tcp_connect(Side::Attacker, bystander, 22)?);
    assert!(lab.login_ok(Side::Bystander)?);
    let show = lab.show("10.99.66.99")?;
    assert!(show["verdict"] == "drop" && show["because"].to_string().contains("all 256 addresses"), "{show}");
    Ok(())
}

#[test]
fn a_block_that_was_a_mistake_does_not_count_afterwards() -> Result<()> {
    let lab = Lab::new()?;
    let response = "[[response]]\nrules = [5710]\ntimeout = \"1h\"\nrepeat_offenders = [\"1d\"]\n";
    let mut controller = lab.start_controller(&(lab.config() + response))?;
    let lifts: [&[&[&str]]; 3] = [
        &[&["unblock", ATTACKER]],
        &[&["unblock", "--all"]],
        &[&["allow", "add", ATTACKER], &["allow", "remove", ATTACKER]],
    ];
    for (pid, lift) in (1..).zip(lifts) {
        lab.log().invalid_user(pid, ATTACKER)?;
        assert_eq!(lab.blocked(ATTACKER)?["offences"], 1, "before {lift:?}");
        for command in lift {
            lab.xdpban(command)?.success()?;
        }
        controller.kill9()?;
        controller = lab.start_controller_with(&["run"])?;
    }
    lab.log().invalid_user(9, ATTACKER)?;
    assert_eq!(lab.blocked(ATTACKER)?["offences"], 1);
    Ok(())
}

#[test]
fn a_network_with_something_protected_in_it_is_not_blocked() -> Result<()> {
    let lab = Lab::new()?;
    let response = "[[response]]\nrules = [5710]\ntimeout = \"1h\"\naggregate = { v4 = 24, hosts = 2 }\n";
    let _controller = lab.start_controller(&(lab.config() + response))?;
    for (pid, host) in (1..).zip(["10.99.0.201", "10.99.0.202"]) {
        lab.log().invalid_user(pid, host)?;
        lab.blocked(host)?;
    }
    lab.has_read_the_log()?;
    assert_eq!(lab.targets()?, ["10.99.0.201", "10.99.0.202"]);
    let incidents = lab.show("10.99.0.203")?["incidents"].clone();
    assert_eq!(
        (&incidents[0]["target"], &incidents[0]["outcome"]),
        (&json!("10.99.0.0/24"), &json!("refused"))
    );
    assert!(incidents[0]["outcome_reason"].to_string().contains("it contains 10.99.0."), "{incidents}");
    Ok(())
}

#[test]
fn what_is_throttled_passes_up_to_its_rate() -> Result<()> {
    let lab = Lab::new()?;
    let response = "[[response]]\nrules = [5710]\naction = \"throttle\"\nrate = \"10/s\"\nburst = 20\ntimeout = \"1h\"\n";
    let controller = lab.start_controller(&(lab.config() + response))?;
    assert!(controller.output()?.contains("on 5710: throttles the source to 10/s (burst 20) for 1 h"));
    lab.attack(Side::Attacker.v4())?;
    let entry = lab.blocked(ATTACKER)?;
    assert_eq!((&entry["action"], &entry["measure"]["rate"]), (&json!("throttle"), &json!(10)), "{entry}");
    assert_eq!(lab.show(ATTACKER)?["verdict"], "throttle");
    // Of 200 all arrive where nothing throttles them; of many more, only as many as the receiver's buffer holds.
    let arrived = lab.flood(Side::Attacker, Side::Attacker.v4(), 200)?;
    assert!((1..100).contains(&arrived), "{arrived} of 200 arrived");
    // A block is stricter, and a throttle does not soften it.
    lab.xdpban(&["block", ATTACKER])?.success()?;
    assert_eq!(lab.flood(Side::Attacker, Side::Attacker.v4(), 500)?, 0);
    lab.log().invalid_user(77, ATTACKER)?;
    lab.has_read_the_log()?;
    assert_eq!(lab.show(ATTACKER)?["verdict"], "drop");
    assert!(lab.login_ok(Side::Bystander)?);
    Ok(())
}

#[test]
fn a_scope_leaves_the_rest_alone() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&lab.config())?;
    lab.xdpban(&["block", ATTACKER, "--port", "22", "--new-only"])?
        .success()?
        .stdout_has("new connections to port 22 only")?;
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    assert_eq!(lab.flood(Side::Attacker, Side::Attacker.v4(), 200)?, 200, "no connections to port 22");
    let entry = &lab.list()?[0];
    assert_eq!(entry["measure"]["ports"], json!([22]), "{entry}");
    assert_eq!(
        (&entry["measure"]["scope"], &lab.show(ATTACKER)?["verdict"]),
        (&json!("new"), &json!("drop"))
    );
    lab.xdpban(&["block", ATTACKER, "--burst", "3"])?.expect_code(2)?;
    lab.xdpban(&["block", ATTACKER, "--throttle", "20"])?.expect_code(2)?.stderr_has("is not a rate")?;
    Ok(())
}

#[test]
fn a_dry_run_counts_and_drops_nothing() -> Result<()> {
    let lab = Lab::new()?;
    let controller = lab.start_controller(&format!("enforce = false\n{}", lab.config()))?;
    assert!(controller.output()?.contains("dry run: nothing is enforced"));
    lab.attack(Side::Attacker.v4())?;
    let entry = lab.blocked(ATTACKER)?;
    assert_eq!(entry["enforced"], false, "{entry}");
    assert!(lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    assert_eq!(lab.flood(Side::Attacker, Side::Attacker.v4(), 200)?, 200);
    let dropped = lab.list()?[0]["dropped_packets"].as_u64();
    assert!(dropped.is_some_and(|dropped| dropped >= 200), "{dropped:?}");
    assert_eq!(lab.show(ATTACKER)?["verdict"], "pass");
    assert_eq!(lab.status()?["enforcing"], false);
    for command in
        [["status"].as_slice(), &["list"], &["show", ATTACKER], &["block", "198.51.100.7", "--for", "1m"]]
    {
        lab.xdpban(command)?.success()?.stdout_has("dry run")?;
    }
    lab.xdpban(&["incidents"])?.success()?.stdout_has("would block")?.stdout_has("would be dropped")?;

    lab.write_config(&lab.config())?;
    controller.reload()?;
    lab.eventually("it enforces", Duration::from_secs(5), |lab| Ok(lab.status()?["enforcing"] == true))?;
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    controller.stop()?;
    let _controller = lab.start_controller_with(&["run", "--dry-run"])?;
    assert!(lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    assert_eq!(lab.targets()?.len(), 2);

    // Each time has an incident of its own, so that what was dropped is not what would have been.
    let on_record = incidents(&lab)?;
    let runs: Vec<_> =
        on_record.iter().map(|incident| (&incident["dry_run"], &incident["outcome"])).collect();
    let (yes, no, lifted) = (&json!(true), &json!(false), &json!("lifted"));
    assert_eq!(runs, [(yes, lifted), (no, lifted), (yes, &json!("in_force"))]);
    let packets: Vec<u64> =
        on_record.iter().filter_map(|incident| incident["dropped_packets"].as_u64()).collect();
    assert!(packets[0] >= 200 && (1..200).contains(&packets[1]), "{packets:?}");
    lab.xdpban(&["verify-record"])?.success()?;
    Ok(())
}

/// The attacker's incidents, oldest first.
fn incidents(lab: &Lab) -> Result<Vec<Value>> {
    Ok(lab.show(ATTACKER)?["incidents"].as_array().cloned().unwrap_or_default())
}

/// How many of 200 packets of the attacker's arrive.
fn arrives(lab: &Lab) -> Result<u64> {
    lab.flood(Side::Attacker, Side::Attacker.v4(), 200)
}

#[test]
fn a_throttle_is_in_force_again_when_a_block_is_over() -> Result<()> {
    let lab = Lab::new()?;
    let response = "[[response]]\nrules = [5710]\naction = \"throttle\"\nrate = \"10/s\"\nburst = 20\ntimeout = \"1h\"\n";
    let controller = lab.start_controller(&(lab.config() + response))?;
    lab.attack(Side::Attacker.v4())?;
    let throttle = lab.blocked(ATTACKER)?;
    assert!((1..100).contains(&arrives(&lab)?));
    lab.xdpban(&["block", ATTACKER, "--for", "8s"])?.success()?;
    assert_eq!(arrives(&lab)?, 0);
    let show = lab.show(ATTACKER)?;
    assert_eq!(
        (&show["verdict"], &show["resting"][0]["action"]),
        (&json!("drop"), &json!("throttle")),
        "{show}"
    );
    lab.xdpban(&["show", ATTACKER])?.success()?.stdout_has("at rest")?;

    // A crash forgets neither.
    controller.kill9()?;
    let controller = lab.start_controller_with(&["run"])?;
    assert_eq!(arrives(&lab)?, 0);
    assert_eq!(lab.show(ATTACKER)?["resting"][0]["expires_at"], throttle["expires_at"]);
    let throttled = |lab: &Lab| Ok(lab.show(ATTACKER)?["verdict"] == "throttle");
    lab.eventually("it is throttled again", Duration::from_secs(15), throttled)?;
    assert!((1..100).contains(&arrives(&lab)?));
    let entry = lab.blocked(ATTACKER)?;
    assert_eq!(entry["expires_at"], throttle["expires_at"], "until its own end");
    lab.eventually("the end of the block is on record", Duration::from_secs(5), |lab| {
        Ok(incidents(lab)?.iter().any(|incident| incident["outcome"] == "expired"))
    })?;
    let [throttle, block] = &incidents(&lab)?[..] else { bail!("{:?}", incidents(&lab)?) };
    assert_eq!((&throttle["action"], &throttle["outcome"]), (&json!("throttle"), &json!("in_force")));
    assert_eq!((&block["action"], &block["outcome"]), (&json!("block"), &json!("expired")));
    assert!(throttle["outcome_reason"].is_null() && block["outcome_reason"].is_null(), "{throttle} {block}");
    assert!(throttle["dropped_packets"].as_u64() >= Some(100), "{throttle}");
    assert!(block["dropped_packets"].as_u64() >= Some(400), "{block}");

    // The same beneath a block of the network, and its end while it rests.
    lab.xdpban(&["block", "10.99.66.0/24", "--for", "1h"])?.success()?;
    assert_eq!(arrives(&lab)?, 0);
    assert_eq!(lab.targets()?, ["10.99.66.0/24"]);
    let rests = "rests while 10.99.66.0/24 has a stricter block";
    let is_noted = |lab: &Lab| Ok(incidents(lab)?[0]["outcome_reason"] == rests);
    lab.eventually("it rests on record", Duration::from_secs(5), is_noted)?;
    let throttle = ["block", OTHER, "--throttle", "10/s"];
    lab.xdpban(&throttle)?
        .success()?
        .stderr_has("10.99.66.67 has that at rest: 10.99.66.0/24, in which it")?;
    let still = "10.99.66.67 is still blocked as part of 10.99.66.0/24; unblock that";
    lab.xdpban(&["unblock", OTHER])?.success()?.stderr_has(still)?;
    assert_eq!(lab.targets()?, ["10.99.66.0/24"]);
    lab.xdpban(&["unblock", "10.99.66.0/24"])?.success()?;
    assert!((1..100).contains(&arrives(&lab)?));
    lab.xdpban(&["block", ATTACKER, "--for", "1h"])?.success()?;
    lab.xdpban(&["unblock", ATTACKER])?.success()?;
    assert_eq!(arrives(&lab)?, 200, "an operator lifts all of it");
    assert!(lab.login_ok(Side::Bystander)?);
    let ended = ["lifted", "expired", "lifted", "lifted"];
    lab.eventually("all of it is on record", Duration::from_secs(5), |lab| {
        Ok(incidents(lab)?.iter().map(|incident| incident["outcome"].as_str()).eq(ended.map(Some)))
    })?;
    controller.stop()?;
    lab.xdpban(&["verify-record"])?.success()?;
    Ok(())
}
