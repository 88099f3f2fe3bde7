use std::net::IpAddr;

use proptest::prelude::*;

use super::*;
use EventKind as K;

/// The source in every message below, unless a test says otherwise.
const SOURCE: &str = "203.0.113.7";

fn event(message: &str) -> Option<Event<'_>> {
    match decode(b"sshd", message.as_bytes()) {
        Decoded::Event(event) => Some(event),
        _ => None,
    }
}

fn ip(text: &str) -> Option<IpAddr> {
    Some(text.parse().unwrap())
}

fn user<'a>(event: &'a Event<'_>) -> Option<&'a str> {
    event.user.as_deref().map(|user| str::from_utf8(user).unwrap())
}

/// A message and what it means: the kind, the port (0: the message has an address without a port), the user (`-`: none
/// named), and the rest in `says`, as words: `attack`, `invalid` (the user), `nowhere` (no address), and the trace.
type Case = (&'static str, EventKind, u16, &'static str, &'static str);

fn check(cases: &[Case]) {
    for (message, kind, port, name, says) in cases {
        let event = event(message).unwrap_or_else(|| panic!("not understood: {message}"));
        assert_eq!(event.kind, *kind, "{message}");
        let nowhere = says.contains("nowhere");
        assert_eq!(event.source, if nowhere { None } else { ip(SOURCE) }, "{message}");
        assert_eq!(event.port.unwrap_or(0), *port, "{message}");
        assert_eq!(user(&event).unwrap_or("-"), *name, "{message}");
        assert_eq!(event.attack, says.contains("attack"), "attack: {message}");
        assert_eq!(event.invalid_user, says.contains("invalid"), "invalid: {message}");
        let trace = match event.trace {
            Trace::None => None,
            Trace::Announced => Some("announced"),
            Trace::Failed => Some("failed"),
            Trace::Pam(_) => Some("pam"),
            Trace::PamSaid => Some("said"),
            Trace::Own => Some("own"),
            Trace::Ending => Some("ending"),
        };
        let said = ["announced", "failed", "pam", "said", "own", "ending"];
        let expected = says.split(' ').find(|word| said.contains(word));
        assert_eq!(trace, expected, "trace: {message}");
    }
}

#[test]
#[rustfmt::skip]
fn credentials() {
    check(&[
        ("Failed password for root from 203.0.113.7 port 22 ssh2", K::FailedPassword, 22, "root", "attack failed"),
        ("Failed password for root from 203.0.113.7 port 22 ssh1", K::FailedPassword, 22, "root", "attack failed"),
        ("Failed password for root from 203.0.113.7 port 22", K::FailedPassword, 22, "root", "attack failed"),
        ("Failed password for root from 203.0.113.7", K::FailedPassword, 0, "root", "attack failed"),
        ("Failed password for root from ::ffff:203.0.113.7 port 22 ssh2", K::FailedPassword, 22, "root", "attack failed"),
        ("Failed password for invalid user a b from 203.0.113.7 port 22 ssh2", K::FailedPassword, 22, "a b", "attack invalid failed"),
        ("Failed password for illegal user a from 203.0.113.7 port 22 ssh2", K::FailedPassword, 22, "a", "attack invalid failed"),
        ("Failed password for invalid user  from 203.0.113.7 port 22 ssh2", K::FailedPassword, 22, "", "attack invalid failed"),
        ("Failed none for root from 203.0.113.7 port 22 ssh2", K::FailedNone, 22, "root", "attack failed"),
        ("Failed keyboard-interactive/pam for root from 203.0.113.7 port 22 ssh2", K::FailedKeyboardInteractive, 22, "root", "attack failed"),
        ("Failed keyboard-interactive for <invalid username> from 203.0.113.7 port 22 ssh2", K::FailedKeyboardInteractive, 22, "<invalid username>", "attack invalid failed"),
        ("Failed publickey for root from 203.0.113.7 port 22 ssh2: RSA SHA256:abc", K::FailedPublickey, 22, "root", ""),
        ("Failed publickey for root from 203.0.113.7 port 22 ssh2: ECDSA 1e:fe:01", K::FailedPublickey, 22, "root", ""),
        ("Failed publickey for invalid user a from 203.0.113.7 port 22 ssh2: ED25519 SHA256:abc [preauth]", K::FailedPublickey, 22, "a", "attack invalid failed"),
        ("Failed publickey for a from 203.0.113.7 port 22 ssh2: RSA-CERT SHA256:abc ID an id (serial 0) CA RSA SHA256:abc", K::FailedPublickey, 22, "a", ""),
        ("Failed hostbased for a from 203.0.113.7 port 22 ssh2: RSA SHA256:abc, client user \"u\", client host \"h\"", K::FailedHostbased, 22, "a", "attack failed"),
        ("Failed gssapi-with-mic for a from 203.0.113.7 port 22 ssh2", K::FailedOther, 22, "a", "attack failed"),
        ("Failed unknown for invalid user a from 203.0.113.7 port 22 ssh2", K::FailedOther, 22, "a", "attack invalid failed"),
        ("Failed password for root from UNKNOWN port 65535 ssh2", K::FailedPassword, 0, "root", "attack nowhere failed"),
        ("Accepted password for root from 203.0.113.7 port 22 ssh2", K::Accepted, 22, "root", ""),
        ("Accepted publickey for root from 203.0.113.7 port 22 ssh2: RSA SHA256:abc", K::Accepted, 22, "root", ""),
        ("Accepted gssapi-with-mic for root from 203.0.113.7 port 22 ssh2: root@EXAMPLE.ORG", K::Accepted, 22, "root", ""),
        ("Postponed keyboard-interactive for invalid user a from 203.0.113.7 port 22 ssh2 [preauth]", K::PostponedKeyboardInteractive, 22, "a", "invalid"),
        ("Postponed publickey for a from 203.0.113.7 port 22 ssh2 [preauth]", K::Other, 22, "a", ""),
        ("Partial publickey for a from 203.0.113.7 port 22 ssh2: RSA SHA256:abc", K::Other, 22, "a", ""),
        ("error: maximum authentication attempts exceeded for root from 203.0.113.7 port 22 ssh2 [preauth]", K::MaxAttemptsExceeded, 22, "root", "attack own"),
        ("error: maximum authentication attempts exceeded for invalid user a from 203.0.113.7 port 22 ssh2 [preauth]", K::MaxAttemptsExceeded, 22, "a", "attack invalid own"),
    ]);
    assert_eq!(event("Accepted publickey for a from 203.0.113.7 port 22 ssh2").unwrap().detail, b"publickey");
    assert_eq!(event("Accepted key RSA SHA256:abc found at /root/.ssh/authorized_keys:1"), None);
    assert_eq!(event("Failed to allocate pty."), None);
}

#[test]
#[rustfmt::skip]
fn users_that_may_not_log_in() {
    check(&[
        ("Invalid user a from 203.0.113.7 port 22", K::InvalidUser, 22, "a", "attack invalid announced"),
        ("Invalid user a from 203.0.113.7", K::InvalidUser, 0, "a", "attack invalid announced"),
        ("Invalid user  from 203.0.113.7 port 22", K::InvalidUser, 22, "", "attack invalid announced"),
        ("Illegal user a from 203.0.113.7", K::InvalidUser, 0, "a", "attack invalid announced"),
        ("Invalid user a from UNKNOWN port 65535", K::InvalidUser, 0, "a", "attack invalid nowhere announced"),
        ("input_userauth_request: invalid user a [preauth]", K::Other, 0, "a", "nowhere"),
        ("User root from 203.0.113.7 not allowed because not listed in AllowUsers", K::UserNotAllowed, 0, "root", "attack announced"),
        ("User root from 203.0.113.7 not allowed because none of user's groups are listed in AllowGroups", K::UserNotAllowed, 0, "root", "attack announced"),
        ("User root from 203.0.113.7 not allowed because shell /bin/none does not exist", K::UserNotAllowed, 0, "root", "attack announced"),
        ("User root from example.org not allowed because not in any group", K::UserNotAllowed, 0, "root", "attack nowhere announced"),
        ("User root not allowed because account is locked", K::UserNotAllowed, 0, "root", "attack nowhere announced"),
        ("User a from 8.8.8.8 not allowed because account is locked", K::UserNotAllowed, 0, "a from 8.8.8.8", "attack nowhere announced"),
        ("fatal: Access denied for user root by PAM account configuration [preauth]", K::UserNotAllowed, 0, "root", "attack nowhere announced"),
        ("ROOT LOGIN REFUSED FROM 203.0.113.7 port 22 [preauth]", K::RootLoginRefused, 22, "-", "attack announced"),
        ("ROOT LOGIN REFUSED FROM 203.0.113.7", K::RootLoginRefused, 0, "-", "attack announced"),
    ]);
}

#[test]
#[rustfmt::skip]
fn pam_messages() {
    check(&[
        ("error: PAM: Authentication failure for root from 203.0.113.7", K::PamAuthError, 0, "root", "attack said"),
        ("error: PAM: authentication error for illegal user a from 203.0.113.7", K::PamAuthError, 0, "a", "attack invalid said"),
        ("error: PAM: Authentication failure for root from 203.0.113.7 via 192.0.2.9", K::PamAuthError, 0, "root", "attack said"),
        ("error: PAM: Authentication failure for root from host.example.org", K::PamAuthError, 0, "root", "attack nowhere said"),
        ("error: PAM: User not known to the underlying authentication module for illegal user a from 203.0.113.7 ", K::PamUnknownUser, 0, "a", "attack invalid said"),
        ("error: PAM: Module is unknown for root from 203.0.113.7", K::PamUnknownModule, 0, "root", ""),
        ("error: PAM: User account has expired for root from 203.0.113.7", K::Other, 0, "root", ""),
        ("pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=203.0.113.7  user=root", K::PamAuthFailure, 0, "root", "attack pam"),
        ("pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=203.0.113.7 ", K::PamAuthFailure, 0, "-", "attack pam"),
        ("pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=host.example.org  user=root", K::PamAuthFailure, 0, "root", "attack nowhere pam"),
        ("pam_sss(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=203.0.113.7 user=a b", K::PamAuthFailure, 0, "a b", "attack said"),
        ("pam_ldap(sshd:auth): Authentication failure; user=root", K::PamAuthFailure, 0, "root", "attack nowhere said"),
        ("pam_ldap: error trying to bind as user \"uid=a\" (Invalid credentials)", K::LdapCredentials, 0, "-", "nowhere"),
        ("pam_unix(sshd:auth): check pass; user unknown", K::Other, 0, "-", "nowhere"),
        ("PAM 1 more authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=203.0.113.7 ", K::PamMoreFailures, 0, "-", "attack pam"),
        ("PAM 4 more authentication failures; logname= uid=0 euid=0 tty=ssh ruser= rhost=203.0.113.7  user=root", K::PamMoreFailures, 0, "root", "attack pam"),
        ("pam_unix(sshd:session): session opened for user alice(uid=2000) by (uid=0)", K::SessionOpened, 0, "alice", "nowhere"),
        ("pam_unix(sshd:session): session opened for user root by root(uid=0)", K::SessionOpened, 0, "root", "nowhere"),
        ("pam_unix(sshd:session): session closed for user alice", K::SessionClosed, 0, "alice", "nowhere"),
    ]);
    let more = event("PAM 4 more authentication failures; logname= rhost=203.0.113.7 ").unwrap();
    assert_eq!(more.trace, Trace::Pam(4));

    // Before Linux-PAM 0.99 the module stood in the tag.
    assert!(is_sshd(b"sshd(pam_unix)"));
    let old = decode(
        b"sshd(pam_unix)",
        b"authentication failure; logname= uid=0 tty=NODEVssh ruser= rhost=203.0.113.7 ",
    );
    assert!(
        matches!(old, Decoded::Event(Event { kind: K::PamAuthFailure, source, .. }) if source == ip(SOURCE))
    );
}

#[test]
#[rustfmt::skip]
fn ends_of_connections() {
    check(&[
        ("Connection closed by 203.0.113.7 port 22 [preauth]", K::ConnectionClosed, 22, "-", "attack ending"),
        ("Connection closed by 203.0.113.7 [preauth]", K::ConnectionClosed, 0, "-", "attack ending"),
        ("Connection closed by 203.0.113.7 port 22", K::ConnectionClosed, 22, "-", ""),
        ("Connection closed by 203.0.113.7", K::ConnectionClosed, 0, "-", ""),
        ("Connection closed by user root 203.0.113.7 port 22", K::ConnectionClosed, 22, "root", ""),
        ("Connection closed by authenticating user root 203.0.113.7 port 22 [preauth]", K::ConnectionClosed, 22, "root", "attack ending"),
        ("Connection closed by invalid user a 203.0.113.7 port 22 [preauth]", K::ConnectionClosed, 22, "a", "attack invalid ending"),
        ("Connection closed by invalid user  203.0.113.7 port 22 [preauth]", K::ConnectionClosed, 22, "", "attack invalid ending"),
        ("Connection reset by 203.0.113.7 port 22", K::ConnectionReset, 22, "-", "attack ending"),
        ("Connection reset by authenticating user root 203.0.113.7 port 22 [preauth]", K::ConnectionReset, 22, "root", "attack ending"),
        ("fatal: Read from socket failed: Connection reset by peer [preauth]", K::ConnectionReset, 0, "-", "attack nowhere ending"),
        ("Disconnected from 203.0.113.7 port 22 [preauth]", K::Disconnected, 22, "-", "attack ending"),
        ("Disconnected from authenticating user root 203.0.113.7 port 22 [preauth]", K::Disconnected, 22, "root", "attack ending"),
        ("Disconnected from user root 203.0.113.7 port 22", K::Disconnected, 22, "root", ""),
        ("Received disconnect from 203.0.113.7: 11: Bye Bye [preauth]", K::ReceivedDisconnect, 0, "-", ""),
        ("Received disconnect from 203.0.113.7 port 22:11: Bye Bye [preauth]", K::ReceivedDisconnect, 22, "-", ""),
        ("error: Received disconnect from 203.0.113.7 port 22:3: com.jcraft.jsch.JSchException: Auth fail [preauth]", K::ReceivedDisconnect, 22, "-", "attack"),
        ("error: Received disconnect from 203.0.113.7: 14: No supported authentication methods available [preauth]", K::ReceivedDisconnect, 0, "-", "attack"),
        ("Disconnecting: Too many authentication failures for root [preauth]", K::TooManyFailures, 0, "root", "attack nowhere ending"),
        ("Disconnecting: Too many authentication failures [preauth]", K::TooManyFailures, 0, "-", "attack nowhere ending"),
        ("Disconnecting invalid user a 203.0.113.7 port 22: Too many authentication failures [preauth]", K::TooManyFailures, 22, "a", "attack invalid ending"),
        ("Disconnecting: Change of username or service not allowed: (a,ssh-connection) -> (b,ssh-connection) [preauth]", K::ChangeOfUser, 0, "-", "attack nowhere own"),
        ("Disconnecting authenticating user a 203.0.113.7 port 22: Change of username or service not allowed: (a,ssh-connection) -> (b,ssh-connection) [preauth]", K::ChangeOfUser, 22, "a", "attack own"),
        ("Disconnecting 203.0.113.7 port 22: Protocol error: expected packet type 50, got 5 [preauth]", K::DispatchFatal, 22, "-", "attack own"),
        ("Disconnecting: Corrupted check bytes on input.", K::BadCheckBytes, 0, "-", "attack nowhere own"),
        ("Connection from 203.0.113.7 port 22 timed out", K::NetworkError, 22, "-", ""),
        ("Timeout, client not responding from user root 203.0.113.7 port 22", K::NetworkError, 22, "root", ""),
        ("Read error from remote host 203.0.113.7 port 22: Connection reset by peer", K::NetworkError, 22, "-", ""),
        ("process_output: ssh_packet_write_poll: Connection from user root 203.0.113.7 port 22: Broken pipe", K::NetworkError, 22, "root", ""),
    ]);
    let error = event("Read error from remote host 203.0.113.7 port 22: Connection reset by peer").unwrap();
    assert_eq!(error.detail, b"Connection reset by peer");
}

#[test]
#[rustfmt::skip]
fn probes() {
    check(&[
        ("Did not receive identification string from 203.0.113.7 port 22", K::NoIdentification, 22, "-", "attack own"),
        ("Did not receive identification string from 203.0.113.7", K::NoIdentification, 0, "-", "attack own"),
        ("Bad protocol version identification 'GET /' from 203.0.113.7 port 22", K::BadProtocolVersion, 22, "-", "attack own"),
        ("Bad protocol version identification '' from 8.8.8.8 port 9' from 203.0.113.7 port 22", K::BadProtocolVersion, 22, "-", "attack own"),
        ("Protocol major versions differ for 203.0.113.7 port 22: SSH-2.0-OpenSSH_7.4 vs. SSH-1.5-x", K::BadProtocolVersion, 22, "-", "attack own"),
        ("error: Protocol major versions differ: 2 vs. 1 [preauth]", K::BadProtocolVersion, 0, "-", "attack nowhere ending"),
        ("banner exchange: Connection from 203.0.113.7 port 22: invalid format [preauth]", K::BannerExchange, 22, "-", "attack own"),
        ("banner exchange: Connection from 203.0.113.7 port 22: could not read protocol version", K::BannerExchange, 22, "-", "attack own"),
        ("error: kex_exchange_identification: read: Connection reset by peer", K::KexIdentification, 0, "-", "attack nowhere ending"),
        ("kex_exchange_identification: client sent invalid protocol identifier \"x from 8.8.8.8 port 9\"", K::KexIdentification, 0, "-", "attack nowhere ending"),
        ("ssh_dispatch_run_fatal: Connection from 203.0.113.7 port 22: message authentication code incorrect [preauth]", K::DispatchFatal, 22, "-", "attack own"),
        ("ssh_dispatch_run_fatal: Connection from invalid user a 203.0.113.7 port 22: invalid format [preauth]", K::DispatchFatal, 22, "a", "attack invalid own"),
        ("fatal: Timeout before authentication for 203.0.113.7 port 22", K::LoginTimeout, 22, "-", "attack own"),
        ("fatal: Timeout before authentication for 203.0.113.7", K::LoginTimeout, 0, "-", "attack own"),
        ("Timeout before authentication for connection from 203.0.113.7 to 192.0.2.9, pid = 17515", K::LoginTimeout, 0, "-", "attack own"),
        ("Unable to negotiate with 203.0.113.7 port 22: no matching cipher found. Their offer: 3des-cbc [preauth]", K::NegotiationFailed, 22, "-", "attack own"),
        ("fatal: Unable to negotiate with 203.0.113.7: no matching key exchange method found. Their offer: x [preauth]", K::NegotiationFailed, 0, "-", "attack own"),
        ("fatal: no matching mac found: client a server b [preauth]", K::NegotiationFailed, 0, "-", "attack nowhere ending"),
        ("drop connection #0 from [203.0.113.7]:22 on [192.0.2.9]:2201 penalty: failed authentication", K::Penalty, 22, "-", "attack own"),
        ("drop connection #2 from [203.0.113.7]:22 on [192.0.2.9]:2202 Maxstartups", K::MaxStartups, 22, "-", ""),
        ("drop connection #10 from [203.0.113.7]:22 on [192.0.2.9]:22 past MaxStartups", K::MaxStartups, 22, "-", ""),
        ("srclimit_penalise: 203.0.113.7/32: activating ipv4 penalty of 17.328 seconds for penalty: failed authentication", K::Penalty, 0, "-", "attack own"),
        ("srclimit_penalise: ipv4: new 203.0.113.7/32 active penalty of 16.000 seconds for penalty: exceeded LoginGraceTime", K::Penalty, 0, "-", "attack own"),
        ("srclimit_penalise: ipv4: new 203.0.113.7/32 deferred penalty of 1.000 seconds for penalty: x", K::Penalty, 0, "-", ""),
        ("srclimit_penalise: ipv4: new 203.0.113.0/24 active penalty of 16.000 seconds for penalty: x", K::Penalty, 0, "-", "attack nowhere own"),
        ("refused connect from host.example.org (203.0.113.7)", K::ConnectionRefused, 0, "-", "attack own"),
        ("refused connect from x 8.8.8.8@::ffff:203.0.113.7 (::ffff:203.0.113.7)", K::ConnectionRefused, 0, "-", "attack own"),
        ("refused connect from 8.8.8.8@203.0.113.7", K::ConnectionRefused, 0, "-", "attack own"),
        ("refused connect from 203.0.113.7", K::ConnectionRefused, 0, "-", "attack own"),
        ("reverse mapping checking getaddrinfo for x.example.org [203.0.113.7] failed - POSSIBLE BREAK-IN ATTEMPT!", K::ReverseMapping, 0, "-", ""),
        ("reverse mapping checking getaddrinfo for [8.8.8.8] failed [203.0.113.7] failed.", K::ReverseMapping, 0, "-", ""),
        ("Address 203.0.113.7 maps to x.example.org, but this does not map back to the address.", K::DnsMismatch, 0, "-", ""),
        ("scanned from 203.0.113.7 with SSH-1.0-SSH_Version_Mapper.  Don't panic.", K::Scanned, 0, "-", "attack own"),
        ("Connection from 203.0.113.7 port 22 on 192.0.2.9 port 22 rdomain \"\"", K::ConnectionFrom, 22, "-", ""),
        ("Connection from 203.0.113.7 port 22", K::ConnectionFrom, 22, "-", ""),
        ("SSH: Server;Ltype: Version;Remote: 203.0.113.7-22;Protocol: 2.0;Client: x;Remote: 8.8.8.8-9;", K::ConnectionFrom, 22, "-", ""),
        ("Magic value check failed (123) on obfuscated handshake.", K::BadCheckBytes, 0, "-", "attack nowhere own"),
    ]);
    let negotiated =
        event("Unable to negotiate with 203.0.113.7 port 22: no matching MAC found. Their offer: x").unwrap();
    assert_eq!(negotiated.detail, b"MAC");
}

#[test]
fn no_form_hides_another() {
    for form in FORMS.iter().filter(|form| !matches!(form.says, Says::Read(_))) {
        let message = form.pattern.example();
        assert_eq!(event(&message).map(|event| event.kind), Some(form.kind), "{message}");
    }
}

#[test]
fn what_stands_around_a_message() {
    let inner = "Failed password for root from 203.0.113.7 port 22 ssh2";
    for (message, times) in [
        (inner.to_owned(), 1),
        (format!(" {inner}\r"), 1),
        (format!("debug1: {inner}"), 1),
        (format!("{inner} [preauth]"), 1),
        (format!("message repeated 5 times: [ {inner}]"), 5),
        (format!("message repeated 2 times: [{inner} [preauth]]"), 2),
    ] {
        let event = event(&message).unwrap_or_else(|| panic!("{message}"));
        assert_eq!(
            (event.kind, event.source, event.repeated),
            (K::FailedPassword, ip(SOURCE), times),
            "{message}"
        );
    }
    assert_eq!(event("message repeated 5 times: [ Failed"), None);
    assert_eq!(event("message repeated 99999999999 times: [ Invalid user a from 203.0.113.7]"), None);
}

#[test]
fn unknown_failures_are_told_from_noise() {
    let unexplained = |message: &str| matches!(decode(b"sshd", message.as_bytes()), Decoded::Unexplained(_));
    assert!(unexplained("error: Login of root was denied by the new gatekeeper"));
    assert!(unexplained("Failed to allocate pty."));
    assert!(!unexplained("Server listening on 0.0.0.0 port 22."));
    assert!(!unexplained("debug1: something failed"));
    assert!(!unexplained("Transferred: sent 3504, received 2608 bytes"));
}

#[test]
fn only_sshd_is_sshd() {
    for program in ["sshd", "sshd-session", "sshd-auth", "/usr/sbin/sshd"] {
        assert!(is_sshd(program.as_bytes()), "{program}");
    }
    for program in ["", "ssh", "sshdx", "xsshd", "sshd ", "sshd/x", "sshd(x)", "CRON"] {
        assert!(!is_sshd(program.as_bytes()), "{program}");
    }
}

#[test]
fn a_certificate_cannot_name_another_source() {
    let message = "Failed publickey for invalid user a from 203.0.113.7 port 22 ssh2: RSA-CERT SHA256:abc ID x from \
                   8.8.8.8 port 9 ssh2: RSA SHA256:abc (serial 0) CA RSA SHA256:abc";
    assert_eq!(event(message).unwrap().source, ip(SOURCE));
    // Cut by log.c so that it ends as a message ends: nobody can tell, so nobody is named.
    let cut = "Failed publickey for invalid user a from 203.0.113.7 port 22 ssh2: RSA-CERT SHA256:abc ID x from 8.8.8.8 \
               port 9 ssh2";
    assert_eq!(event(cut).unwrap().source, None);
}

/// The forms that carry a user name, `{}`, as sshd writes it.
const WITH_USER: &[&str] = &[
    "Failed password for {} from 203.0.113.7 port 22 ssh2",
    "Failed password for invalid user {} from 203.0.113.7 port 22 ssh2",
    "Failed publickey for invalid user {} from 203.0.113.7 port 22 ssh2: RSA SHA256:abc",
    "Failed publickey for invalid user {} from 203.0.113.7 port 22 ssh2: RSA-CERT SHA256:abc ID x (serial 0) CA RSA SHA256:abc",
    "Failed hostbased for {} from 203.0.113.7 port 22 ssh2: RSA SHA256:abc, client user \"u\", client host \"h\"",
    "Failed keyboard-interactive/pam for invalid user {} from 203.0.113.7 port 22 ssh2",
    "Failed none for invalid user {} from 203.0.113.7 port 22 ssh2 [preauth]",
    "Postponed keyboard-interactive for invalid user {} from 203.0.113.7 port 22 ssh2 [preauth]",
    "Invalid user {} from 203.0.113.7 port 22",
    "Invalid user {} from 203.0.113.7",
    "User {} from 203.0.113.7 not allowed because not listed in AllowUsers",
    "User {} not allowed because account is locked",
    "input_userauth_request: invalid user {} [preauth]",
    "error: maximum authentication attempts exceeded for invalid user {} from 203.0.113.7 port 22 ssh2 [preauth]",
    "error: PAM: Authentication failure for {} from 203.0.113.7",
    "error: PAM: Authentication failure for illegal user {} from 203.0.113.7",
    "error: PAM: Authentication failure for illegal user {} from 203.0.113.7 via 192.0.2.9",
    "error: PAM: User not known to the underlying authentication module for illegal user {} from 203.0.113.7",
    "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=203.0.113.7  user={}",
    "pam_unix(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=  user={}",
    "pam_sss(sshd:auth): authentication failure; logname= uid=0 euid=0 tty=ssh ruser= rhost=203.0.113.7 user={}",
    "pam_ldap(sshd:auth): Authentication failure; user={}",
    "PAM 2 more authentication failures; logname= uid=0 euid=0 tty=ssh ruser= rhost=203.0.113.7  user={}",
    "Disconnecting: Too many authentication failures for {} [preauth]",
    "Disconnecting invalid user {} 203.0.113.7 port 22: Too many authentication failures [preauth]",
    "Disconnecting authenticating user {} 203.0.113.7 port 22: Change of username or service not allowed: ({},x) -> ({},{}) [preauth]",
    "Disconnecting invalid user {} 203.0.113.7 port 22: Protocol error: expected packet type 50, got 5 [preauth]",
    "Connection closed by invalid user {} 203.0.113.7 port 22 [preauth]",
    "Connection reset by authenticating user {} 203.0.113.7 port 22 [preauth]",
    "Disconnected from invalid user {} 203.0.113.7 port 22 [preauth]",
    "ssh_dispatch_run_fatal: Connection from invalid user {} 203.0.113.7 port 22: invalid format [preauth]",
    "Unable to negotiate with authenticating user {} 203.0.113.7 port 22: no matching cipher found. Their offer: {}",
    "message repeated 3 times: [ Failed password for invalid user {} from 203.0.113.7 port 22 ssh2]",
];

/// Other texts that a client chooses, `{}`.
const WITH_TEXT: &[&str] = &[
    "Bad protocol version identification '{}' from 203.0.113.7 port 22",
    "error: kex_exchange_identification: client sent invalid protocol identifier \"{}\"",
    "Protocol major versions differ for 203.0.113.7 port 22: SSH-2.0-OpenSSH_7.4 vs. {}",
    "error: Received disconnect from 203.0.113.7 port 22:2: {} [preauth]",
    "Received disconnect from 203.0.113.7: 11: {}",
    "Unable to negotiate with 203.0.113.7 port 22: no matching cipher found. Their offer: {} [preauth]",
    "reverse mapping checking getaddrinfo for {} [203.0.113.7] failed - POSSIBLE BREAK-IN ATTEMPT!",
    "Address 203.0.113.7 maps to {}, but this does not map back to the address.",
    "refused connect from {}@203.0.113.7 (203.0.113.7)",
    "Failed hostbased for root from 203.0.113.7 port 22 ssh2: RSA SHA256:abc, client user \"{}\", client host \"{}\"",
    "Failed publickey for root from 203.0.113.7 port 22 ssh2: RSA-CERT SHA256:abc ID {} (serial 0) CA RSA SHA256:abc",
    "scanned from 203.0.113.7 with {}.  Don't panic.",
];

/// Whether what is found in the form is the source or, where the form names none, nothing.
fn names_the_source(form: &str, text: &str) -> Result<(), TestCaseError> {
    let message = form.replace("{}", text);
    let event = match decode(b"sshd", message.as_bytes()) {
        Decoded::Event(event) => event,
        _ => return Err(TestCaseError::fail(format!("not understood: {message}"))),
    };
    let expected = form.contains(SOURCE).then(|| ip(SOURCE)).flatten();
    prop_assert_eq!(event.source, expected, "{}", message);
    Ok(())
}

#[test]
fn chosen_names_name_no_source() {
    let long = "x".repeat(10_000);
    let long_forgery = "from 8.8.8.8 port 22 ssh2 ".repeat(400);
    let names = [
        "",
        " ",
        "  ",
        "x from 8.8.8.8 port 22 ssh2",
        "x from 8.8.8.8",
        "from 8.8.8.8 port 22",
        "root@192.0.2.1 [preauth]",
        "8.8.8.8",
        "8.8.8.8 port 22",
        "8.8.8.8 port 22 [preauth]",
        "[preauth]",
        "port 22",
        "from",
        " from ",
        "a\\nFailed password for root from 8.8.8.8 port 22 ssh2",
        "\\320\\277",
        "invalid user x",
        "user x 8.8.8.8 port 1",
        "x not allowed because y",
        "x rhost=8.8.8.8  user=y",
        "rhost=8.8.8.8",
        "(8.8.8.8)",
        "x]",
        "x via 8.8.8.8",
        "x from 8.8.8.8 via 8.8.4.4",
        "x for y from 8.8.8.8",
        "x ssh2",
        "UNKNOWN port 65535",
        &long,
        &long_forgery,
    ];
    for form in WITH_USER.iter().chain(WITH_TEXT) {
        for name in names {
            names_the_source(form, name).unwrap();
        }
    }
}

/// Names put together from the words of sshd's own messages, which go further than chance does.
fn name() -> impl Strategy<Value = String> {
    let word = prop::sample::select(vec![
        "from",
        "for",
        "port",
        "22",
        "8.8.8.8",
        "2001-db8",
        "ssh2",
        "invalid",
        "user",
        "[preauth]",
        "rhost=8.8.8.8",
        "user=x",
        "via",
        "not allowed because",
        "Failed password",
        "UNKNOWN",
        "(8.8.8.8)",
        "[8.8.8.8]",
        "]",
        "'",
        "\"",
        "\\012",
        "x",
        "",
        "on",
        "failed",
        "ID",
        "account is locked",
        "Their offer",
        "error",
        "PAM",
        ",",
    ]);
    prop_oneof![
        proptest::collection::vec(word, 0..12).prop_map(|words| words.join(" ")),
        // auth2.c cuts a user name at a colon.
        "[ -9;-~]{0,40}",
    ]
}

proptest! {
    #[test]
    fn no_name_moves_the_source(form in 0..WITH_USER.len(), name in name()) {
        names_the_source(WITH_USER[form], &name)?;
    }

    #[test]
    fn no_text_moves_the_source(form in 0..WITH_TEXT.len(), text in name()) {
        names_the_source(WITH_TEXT[form], &text)?;
    }

    #[test]
    fn nothing_panics(message: Vec<u8>) {
        decode(b"sshd", &message);
    }

    #[test]
    fn nothing_like_a_form_panics(form in 0..FORMS.len(), tail: Vec<u8>, cut in 0usize..80) {
        let text = FORMS[form].pattern.example();
        let mut message = text.as_bytes()[..cut.min(text.len())].to_vec();
        message.extend(tail);
        decode(b"sshd", &message);
    }
}
