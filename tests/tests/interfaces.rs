//! Which interfaces are guarded: as they come and go, as the configuration changes, and beside what else is on them.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use xdpban_tests::{Lab, Side};

const ATTACKER: &str = "10.99.66.66";

const SOON: Duration = Duration::from_secs(5);

/// The lab's configuration with other interfaces.
fn config(lab: &Lab, interfaces: &str) -> String {
    lab.config().replace("interfaces = [\"eth0\"]", &format!("interfaces = {interfaces}"))
}

/// The interfaces that the gate stands on, by status, each with its mode.
fn guarded(lab: &Lab) -> Result<Vec<String>> {
    let status = lab.status()?;
    let interfaces = status["interfaces"].as_array().context("status has no interfaces")?;
    let mut guarded: Vec<String> = interfaces
        .iter()
        .filter(|one| one["attached"] == true)
        .map(|one| format!("{} {}", text(&one["name"]), text(&one["mode"])))
        .collect();
    guarded.sort();
    Ok(guarded)
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("none")
}

fn becomes_guarded(lab: &Lab, expected: &[&str]) -> Result<()> {
    lab.eventually(&format!("{expected:?} are guarded"), SOON, |lab| Ok(guarded(lab)? == expected))
}

fn has_program(lab: &Lab, interface: &str) -> Result<bool> {
    Ok(lab.sh(&format!("ip link show dev {interface}"))?.contains("prog/xdp"))
}

#[test]
fn a_pattern_takes_up_interfaces_as_they_come() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&config(&lab, "[\"eth*\", \"wan?\"]"))?;
    assert_eq!(guarded(&lab)?, ["eth0 native"]);
    lab.sh("ip link add wan0 type veth peer name far0 && ip link add other type veth peer name far1")?;
    becomes_guarded(&lab, &["eth0 native", "wan0 native"])?;
    assert!(has_program(&lab, "wan0")? && !has_program(&lab, "other")?);
    lab.sh("ip link set other name wan1")?;
    becomes_guarded(&lab, &["eth0 native", "wan0 native", "wan1 native"])?;
    lab.sh("ip link set wan1 name other")?;
    becomes_guarded(&lab, &["eth0 native", "wan0 native"])?;
    assert!(!has_program(&lab, "other")?, "it matches no longer");
    lab.sh("ip link delete wan0")?;
    becomes_guarded(&lab, &["eth0 native"])?;
    assert_eq!(lab.health()?, "", "a pattern wants nothing in particular");
    Ok(())
}

#[test]
fn a_pattern_that_matches_nothing_yet_is_waited_for() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&config(&lab, "[\"wan*\"]"))?;
    assert!(lab.health()?.contains("nothing is guarded: no interface is wan*"));
    lab.sh("ip link add wan0 type veth peer name far0")?;
    becomes_guarded(&lab, &["wan0 native"])?;
    assert_eq!(lab.health()?, "");
    Ok(())
}

#[test]
fn an_interface_that_leaves_the_configuration_is_let_go_at_a_reload() -> Result<()> {
    let lab = Lab::new()?;
    lab.sh("ip link add wan0 type veth peer name far0")?;
    let controller = lab.start_controller(&config(&lab, "[\"eth0\", \"wan0\"]"))?;
    assert_eq!(guarded(&lab)?, ["eth0 native", "wan0 native"]);

    // The last gate stays until another one stands.
    lab.write_config(&config(&lab, "[\"wan7\"]"))?;
    controller.reload()?;
    lab.eventually("the reload is done", SOON, |lab| Ok(lab.health()?.contains("wan7 is not guarded")))?;
    assert_eq!(guarded(&lab)?, ["eth0 native", "wan0 native"]);
    assert!(has_program(&lab, "eth0")?);

    lab.write_config(&config(&lab, "[\"eth0\"]"))?;
    controller.reload()?;
    becomes_guarded(&lab, &["eth0 native"])?;
    assert!(!has_program(&lab, "wan0")?);
    assert!(controller.output()?.contains("wan0 is no longer to be guarded"));

    // So it is at a start, too, with what an earlier controller left.
    controller.stop()?;
    let _controller = lab.start_controller(&config(&lab, "[\"wan0\"]"))?;
    assert_eq!(guarded(&lab)?, ["wan0 native"]);
    assert!(!has_program(&lab, "eth0")?);
    Ok(())
}

#[test]
fn the_mode_changes_at_a_reload_without_a_gap() -> Result<()> {
    let lab = Lab::new()?;
    let controller = lab.start_controller(&lab.config())?;
    lab.xdpban(&["block", ATTACKER])?.success()?;
    let stream = lab.stream(Side::Attacker, Side::Attacker.v4(), Duration::from_micros(500))?;
    for (mode, expected) in [("tc", "eth0 tc"), ("native", "eth0 native"), ("auto", "eth0 native")] {
        lab.write_config(&format!("mode = \"{mode}\"\n{}", lab.config()))?;
        controller.reload()?;
        becomes_guarded(&lab, &[expected])?;
    }
    let (sent, received) = stream.stop()?;
    assert!(sent > 0 && received == 0, "{received} of {sent} datagrams got through");
    Ok(())
}

#[test]
fn an_interface_without_its_default_route_keeps_its_gate() -> Result<()> {
    let lab = Lab::new()?;
    let controller = lab.start_controller(&config(&lab, "[]"))?;
    assert_eq!(guarded(&lab)?, ["eth0 native"]);
    lab.sh("ip route delete default && ip -6 route delete default")?;
    lab.eventually("that is noticed", SOON, |_| {
        Ok(controller.output()?.contains("eth0 has no default route any longer, and keeps its gate"))
    })?;
    assert_eq!(guarded(&lab)?, ["eth0 native"]);

    // Another one takes the route over: both are guarded for a while, also over a restart.
    lab.sh("ip link add wan0 type veth peer name far0 && ip link set far0 up && ip link set wan0 up")?;
    lab.sh("ip address add 192.0.2.2/24 dev wan0 && ip route add default via 192.0.2.1")?;
    becomes_guarded(&lab, &["eth0 native", "wan0 native"])?;
    controller.stop()?;
    let _controller = lab.start_controller(&config(&lab, "[]"))?;
    assert_eq!(guarded(&lab)?, ["eth0 native", "wan0 native"]);
    lab.xdpban(&["block", ATTACKER])?.success()?;
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    assert!(lab.tcp_connect(Side::Bystander, Side::Bystander.v4(), 22)?);
    Ok(())
}

#[test]
fn an_interface_is_deleted_and_made_again_under_traffic() -> Result<()> {
    let lab = Lab::new()?;
    lab.sh("ip link add wan0 type veth peer name far0")?;
    let _controller = lab.start_controller(&config(&lab, "[\"eth0\", \"wan0\"]"))?;
    lab.xdpban(&["block", ATTACKER])?.success()?;
    let attacker = lab.stream(Side::Attacker, Side::Attacker.v4(), Duration::from_micros(500))?;
    let bystander = lab.stream(Side::Bystander, Side::Bystander.v4(), Duration::from_micros(500))?;
    for _ in 0..3 {
        lab.sh("ip link delete wan0")?;
        becomes_guarded(&lab, &["eth0 native"])?;
        lab.sh("ip link add wan0 type veth peer name far0")?;
        becomes_guarded(&lab, &["eth0 native", "wan0 native"])?;
    }
    let (sent, received) = attacker.stop()?;
    assert!(sent > 0 && received == 0, "{received} of {sent} datagrams of the attacker got through");
    let (sent, received) = bystander.stop()?;
    assert_eq!(received, sent, "the bystander's datagrams");
    Ok(())
}

#[test]
fn an_interface_that_is_made_again_is_closed_before_it_is_up() -> Result<()> {
    let lab = Lab::new()?;
    let _controller = lab.start_controller(&config(&lab, "[\"eth0\", \"wan?\"]"))?;
    lab.xdpban(&["block", "192.0.2.1"])?.success()?;
    // Sends without a break, for no longer than the test can take.
    let datagrams = "while [ $SECONDS -lt 60 ]; do echo x > /dev/udp/192.0.2.2/9; sleep 0.001; done";
    let mut sender = lab.command(Side::Attacker, "bash");
    let mut sender = sender.args(["-c", datagrams]).stderr(Stdio::null()).spawn().context("start bash")?;
    let pid = sender.id();
    lab.sh(&format!(
        "until [ \"$(readlink /proc/{pid}/ns/net)\" != \"$(readlink /proc/self/ns/net)\" ]; do sleep 0.01; done"
    ))?;
    let arrived = |lab: &Lab| lab.sh("awk '/^Udp:/ { ports = $3 } END { print ports }' /proc/net/snmp");
    let before = arrived(&lab)?;
    let mut dropped = 0;
    for _ in 0..3 {
        lab.sh(&format!(
            "ip link add wan0 type veth peer name far0 netns {pid} && \
             nsenter --net --target {pid} ip address add 192.0.2.1/24 dev far0 && \
             nsenter --net --target {pid} ip link set far0 up"
        ))?;
        becomes_guarded(&lab, &["eth0 native", "wan0 native"])?;
        lab.sh("ip address add 192.0.2.2/24 dev wan0 && ip link set wan0 up")?;
        lab.eventually("its packets are dropped", SOON, |lab| {
            let entry = lab.entry("192.0.2.1")?.context("it is not blocked")?;
            Ok(entry["dropped_packets"].as_u64() > Some(dropped))
        })?;
        lab.sh("ip link delete wan0")?;
        becomes_guarded(&lab, &["eth0 native"])?;
        let entry = lab.entry("192.0.2.1")?.context("it is not blocked any longer")?;
        dropped = entry["dropped_packets"].as_u64().context("no count")?;
    }
    sender.kill().context("end bash")?;
    sender.wait().context("wait for bash")?;
    assert_eq!(arrived(&lab)?, before, "of {dropped} that were dropped");
    Ok(())
}

#[test]
fn an_interface_that_goes_to_another_namespace_is_let_go_and_guarded_when_it_is_back() -> Result<()> {
    let lab = Lab::new()?;
    lab.sh("ip link add wan0 type veth peer name far0")?;
    let controller = lab.start_controller(&config(&lab, "[\"eth0\", \"wan0\"]"))?;
    assert_eq!(guarded(&lab)?, ["eth0 native", "wan0 native"]);
    let there = lab.sh(
        "unshare --net sleep 60 & pid=$!; \
         until [ \"$(readlink /proc/$pid/ns/net)\" != \"$(readlink /proc/self/ns/net)\" ]; do sleep 0.01; done; \
         ip link set wan0 netns $pid; sleep 1; \
         nsenter --net --target $pid ip link show dev wan0; \
         home=$$; nsenter --net --target $pid ip link set wan0 netns $home; \
         kill $pid",
    )?;
    assert!(!there.contains("prog/xdp"), "{there}");
    becomes_guarded(&lab, &["eth0 native", "wan0 native"])?;
    assert!(controller.output()?.contains("wan0 is gone, and the gate with it"));
    Ok(())
}

#[test]
fn a_bridge_is_left_alone_where_its_ports_are_guarded() -> Result<()> {
    let lab = Lab::new()?;
    lab.sh("ip link add br0 type bridge && ip link add port0 type veth peer name far0")?;
    lab.sh("ip link set port0 master br0 && ip link set br0 up && ip link set port0 up")?;
    let controller = lab.start_controller(&config(&lab, "[\"eth0\", \"br0\", \"port0\"]"))?;
    assert_eq!(guarded(&lab)?, ["eth0 native", "port0 native"]);
    lab.xdpban(&["status"])?.success()?.stdout_has("guarded by way of port0")?;
    assert_eq!(lab.health()?, "");
    // Without it, the bridge itself is guarded, and its ports are named.
    lab.write_config(&config(&lab, "[\"eth0\", \"br0\"]"))?;
    controller.reload()?;
    becomes_guarded(&lab, &["br0 tc", "eth0 native"])?;
    assert!(lab.health()?.contains("Its frames come in by port0; guard port0"), "{}", lab.health()?);
    Ok(())
}

#[test]
fn what_cannot_be_guarded_is_refused_with_what_to_guard_instead() -> Result<()> {
    let lab = Lab::new()?;
    lab.sh("mkdir /dev/net && mknod /dev/net/tun c 10 200")?;
    lab.sh("ip tuntap add tun0 mode tun && ip link set tun0 up")?;
    lab.write_config(&config(&lab, "[\"tun0\"]"))?;
    lab.xdpban(&["run"])?
        .expect_code(1)?
        .stderr_has("tun0 is a tunnel whose packets have no Ethernet header")?
        .stderr_has("guard eth0 instead")?;
    lab.write_config(&config(&lab, "[\"lo\"]"))?;
    lab.xdpban(&["run"])?.expect_code(1)?.stderr_has("guard eth0 instead")?;
    // A default route through a tunnel does not keep the host unguarded.
    lab.sh("ip address add 192.0.2.1/24 dev tun0 && ip route add default dev tun0 metric 50")?;
    let _controller = lab.start_controller(&config(&lab, "[\"default-route\"]"))?;
    assert_eq!(guarded(&lab)?, ["eth0 native"]);
    assert_eq!(lab.health()?, "");
    lab.xdpban(&["status"])?.success()?.stdout_has("is a tunnel")?;
    Ok(())
}

#[test]
fn when_another_program_goes_the_driver_takes_its_place() -> Result<()> {
    let lab = Lab::new()?;
    let elsewhere = lab
        .config()
        .replace("/sys/fs/bpf/xdpban", "/sys/fs/bpf/other")
        .replace("/runtime", "/other-runtime")
        .replace("/state", "/other-state");
    // A gate with pins of its own is another program to this one.
    lab.write_config(&elsewhere)?;
    let mut other = lab.command(Side::Host, lab.xdpban_binary()?);
    other.arg("--config").arg(lab.config_file()).arg("run").stderr(Stdio::null());
    let mut other = other.spawn().context("start the other controller")?;
    lab.eventually("the other program is there", SOON * 3, |lab| has_program(lab, "eth0"))?;
    other.kill().context("end the other controller")?;
    other.wait().context("wait for the other controller")?;

    let _controller = lab.start_controller(&lab.config())?;
    assert_eq!(guarded(&lab)?, ["eth0 tc"]);
    assert!(lab.health()?.contains("another XDP program"));
    lab.xdpban(&["block", ATTACKER])?.success()?;
    lab.sh("rm -r /sys/fs/bpf/other && ip link set eth0 alias looked-at")?;
    becomes_guarded(&lab, &["eth0 native"])?;
    assert_eq!(lab.health()?, "");
    assert!(!lab.tcp_connect(Side::Attacker, Side::Attacker.v4(), 22)?);
    assert!(lab.tcp_connect(Side::Bystander, Side::Bystander.v4(), 22)?);
    Ok(())
}
