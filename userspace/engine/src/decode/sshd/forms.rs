//! The forms of sshd's messages, in the order in which they are tried; the files name where OpenSSH's source has them.
//!
//! What stands around every message (`error: `, `[preauth]`, `message repeated`) is not part of a form.

use EventKind as K;
use Says::{Attack, Ending, If, Info, Read};

use super::{credential, out_of_methods, pam, patched};
use crate::decode::pattern::Pattern;
use crate::event::{Event, EventKind, Trace};

/// One wording of a message, and what it means.
pub(super) struct Form {
    pub(super) pattern: Pattern,
    pub(super) kind: EventKind,
    pub(super) says: Says,
}

/// What a message says of its source.
#[derive(Clone, Copy)]
pub(super) enum Says {
    /// It is hostile, and this is how it counts.
    Attack(Trace),
    /// It is hostile where this holds for the text that the form leaves, though no attempt by itself.
    If(fn(&[u8]) -> bool),
    /// Nothing by itself.
    Info,
    /// What this makes of the text that the form leaves; where it makes nothing of it, the form does not fit.
    Read(fn(&[u8]) -> Option<Event<'_>>),
    /// A probe where it ends a connection before the login. `plain`: also where the message does not show whether
    /// there was a login, as sshd words the end of a logged-in connection differently.
    Ending {
        /// See above.
        plain: bool,
    },
}

const fn form(text: &'static str, kind: EventKind, says: Says) -> Form {
    Form { pattern: Pattern::new(text), kind, says }
}

const OWN: Says = Attack(Trace::Own);
const ANNOUNCED: Says = Attack(Trace::Announced);
const HANGUP: Says = Attack(Trace::Ending);

#[rustfmt::skip]
pub(super) const FORMS: &[Form] = &[
    // auth.c, auth_log: `Failed METHOD for USER from ADDRESS port N ssh2: KEY`; credential.rs reads what `{text}` takes.
    form("Failed {text}", K::FailedOther, Read(credential::failed)),
    form("Accepted {text}", K::Accepted, Read(credential::accepted)),
    form("Postponed {text}", K::PostponedKeyboardInteractive, Read(credential::postponed)),
    form("Partial {text}", K::Other, Read(credential::partial)),

    // auth.c, getpwnamallow and auth_maxtries_exceeded; auth1.c wrote "Illegal".
    form("Invalid user {user} from {peer}", K::InvalidUser, ANNOUNCED),
    form("Illegal user {user} from {peer}", K::InvalidUser, ANNOUNCED),
    form("maximum authentication attempts exceeded for {account} from {peer} ssh2", K::MaxAttemptsExceeded, OWN),
    form("maximum authentication attempts exceeded for {account} from {peer} ssh1", K::MaxAttemptsExceeded, OWN),
    form("maximum authentication attempts exceeded for {account} from {peer}", K::MaxAttemptsExceeded, OWN),
    form("input_userauth_request: invalid user {user}", K::Other, Info),
    form("input_userauth_request: illegal user {user}", K::Other, Info),

    // auth.c, allowed_user and auth_root_allowed. The locked account names no address, whatever the user's name holds.
    form("User {user} not allowed because account is locked", K::UserNotAllowed, ANNOUNCED),
    form("User {user} from {host} not allowed because {own}", K::UserNotAllowed, ANNOUNCED),
    form("User {user} not allowed because {own}", K::UserNotAllowed, ANNOUNCED),
    form("Login restricted for {user}", K::UserNotAllowed, ANNOUNCED),
    form("ROOT LOGIN REFUSED FROM {peer}", K::RootLoginRefused, ANNOUNCED),
    form("Authentication tried for {user} with correct key but not from a permitted host {own}", K::Other, Info),
    form("Authentication refused: bad ownership or modes for {own}", K::KeyFileModes, Info),
    form("bad ownership or modes for {own}", K::KeyFileModes, Info),

    // auth-pam.c, sshpam_query and do_pam_account, and PAM's modules, which log under sshd's name; see pam.rs.
    form("PAM: {text}", K::PamAuthError, Read(pam::said)),
    form("PAM {text}", K::PamMoreFailures, Read(pam::more)),
    form("pam_{text}", K::PamAuthFailure, Read(pam::module)),
    form("Access denied for user {user} by PAM account configuration", K::UserNotAllowed, ANNOUNCED),

    // packet.c, sshpkt_vfatal and ssh_packet_disconnect. The user is named from OpenSSH 7.5 on.
    form("Connection closed by {remote}", K::ConnectionClosed, Ending { plain: false }),
    form("Connection reset by {remote}", K::ConnectionReset, Ending { plain: true }),
    form("Disconnected from {remote}", K::Disconnected, Ending { plain: false }),
    form("Read from socket failed: Connection reset by peer", K::ConnectionReset, Ending { plain: false }),
    form("Read from socket failed: {detail}", K::NetworkError, Info),
    form("Disconnecting: Too many authentication failures for {account}", K::TooManyFailures, HANGUP),
    form("Disconnecting: Too many authentication failures", K::TooManyFailures, HANGUP),
    form("Disconnecting {remote}: Too many authentication failures", K::TooManyFailures, HANGUP),
    form("Too many authentication failures for {account}", K::TooManyFailures, HANGUP),
    form("Disconnecting: Change of username or service not allowed{text}", K::ChangeOfUser, OWN),
    form("Disconnecting {remote}: Change of username or service not allowed{text}", K::ChangeOfUser, OWN),
    form("Disconnecting: Corrupted check bytes on input{own}", K::BadCheckBytes, OWN),
    form("Disconnecting {remote}: Corrupted check bytes on input{own}", K::BadCheckBytes, OWN),
    form("Disconnecting: Corrupted MAC on input{own}", K::DispatchFatal, OWN),
    form("Disconnecting {remote}: Corrupted MAC on input{own}", K::DispatchFatal, OWN),
    form("Disconnecting: Packet corrupt", K::DispatchFatal, OWN),
    form("Disconnecting {remote}: Packet corrupt", K::DispatchFatal, OWN),
    form("Disconnecting: Protocol error{text}", K::DispatchFatal, OWN),
    form("Disconnecting {remote}: Protocol error{text}", K::DispatchFatal, OWN),
    form("Disconnecting: protocol error{text}", K::DispatchFatal, OWN),
    form("Disconnecting {remote}: protocol error{text}", K::DispatchFatal, OWN),
    form("Disconnecting: Bad packet length {own}", K::BadPacketLength, OWN),
    form("Disconnecting {remote}: Bad packet length {own}", K::BadPacketLength, OWN),
    form("Disconnecting: bad client public DH value", K::BadDhValue, OWN),
    form("Disconnecting {remote}: bad client public DH value", K::BadDhValue, OWN),
    form("Disconnecting: {text}", K::Other, Info),
    form("Disconnecting {remote}: {text}", K::Other, Info),
    form("Received disconnect from {peer}:{text}", K::ReceivedDisconnect, If(out_of_methods)),
    form("ssh_dispatch_run_fatal: Connection from {remote}: {detail}", K::DispatchFatal, OWN),
    form("dispatch_protocol_error: {own}", K::Other, Info),
    form("kex_protocol_error: {own}", K::Other, Info),
    form("kex protocol error: {own}", K::Other, Info),
    form("Hm, kex protocol error: {own}", K::Other, Info),
    form("Bad packet length {own}", K::BadPacketLength, Info),
    form("Corrupted MAC on input{own}", K::DispatchFatal, OWN),
    form("Corrupted check bytes on input{own}", K::BadCheckBytes, OWN),
    form("bad client public DH value", K::BadDhValue, OWN),
    form("crc32 compensation attack: network attack detected", K::BadCheckBytes, OWN),
    form("padding error: {own}", K::Other, Info),
    form("buffer_get_string: bad string {own}", K::BadString, OWN),
    form("buffer_get_bignum2_ret: {own}", K::KeyError, Info),
    form("buffer_get_bignum2: {own}", K::KeyError, Info),
    form("Connection from {remote} timed out", K::NetworkError, Info),
    form("Timeout, client not responding from {remote}", K::NetworkError, Info),
    form("Timeout, client not responding.", K::NetworkError, Info),
    form("process_output: ssh_packet_write_poll: Connection from {remote}: {detail}", K::NetworkError, Info),
    form("ssh_packet_write_poll: Connection from {remote}: {detail}", K::NetworkError, Info),
    form("ssh_packet_write_wait: Connection from {remote}: {detail}", K::NetworkError, Info),
    form("packet_write_poll: Connection from {remote}: {detail}", K::NetworkError, Info),
    form("packet_write_wait: Connection from {remote}: {detail}", K::NetworkError, Info),
    form("process_output: {detail}", K::NetworkError, Info),
    form("Write failed: {detail}", K::NetworkError, Info),
    form("Read error from remote host {remote}: {detail}", K::NetworkError, Info),
    form("get_remote_port {detail}", K::NetworkError, Info),

    // kex.c, and before OpenSSH 7.8 sshd.c: the exchange of identifications and the negotiation.
    form("Did not receive identification string from {peer}", K::NoIdentification, OWN),
    form("Bad protocol version identification {text} from {peer}", K::BadProtocolVersion, OWN),
    form("Protocol major versions differ for {peer}: {text}", K::BadProtocolVersion, OWN),
    form("Protocol major versions differ: {text}", K::BadProtocolVersion, HANGUP),
    form("banner exchange: Connection from {remote}: {detail}", K::BannerExchange, OWN),
    form("kex_exchange_identification: {text}", K::KexIdentification, HANGUP),
    form("ssh_exchange_identification: {text}", K::KexIdentification, HANGUP),
    form("scanned from {host} with {text}", K::Scanned, OWN),
    form("probed from {peer} with {text}", K::Scanned, OWN),
    form("Could not write ident string to {peer}", K::NetworkError, Info),
    form("Unable to negotiate with {remote}: no matching {detail} found. Their offer: {text}", K::NegotiationFailed, OWN),
    form("Unable to negotiate with {remote}: no matching {detail} found.{own}", K::NegotiationFailed, OWN),
    form("Unable to negotiate with {remote}: {text}", K::NegotiationFailed, OWN),
    form("Unable to negotiate a {detail}", K::NegotiationFailed, HANGUP),
    form("no matching {detail} found: {text}", K::NegotiationFailed, HANGUP),
    form("no {detail} alg", K::NegotiationFailed, HANGUP),
    form("Magic value check failed from {peer} on obfuscated handshake{own}", K::BadCheckBytes, OWN),
    form("Magic value check failed{text} from {peer}", K::BadCheckBytes, OWN),
    form("Magic value check failed{text}", K::BadCheckBytes, OWN),

    // sshd.c and srclimit.c: what the listening process says. Penalties came with OpenSSH 9.8.
    form("Timeout before authentication for connection from {host} to {own}", K::LoginTimeout, OWN),
    form("Timeout before authentication for {peer}", K::LoginTimeout, OWN),
    form("drop connection #{n} from [{host}]:{port} on [{own}]:{n} penalty{own}", K::Penalty, OWN),
    form("drop connection #{n} from [{host}]:{port} on {own}", K::MaxStartups, Info),
    form("beginning MaxStartups throttling", K::MaxStartups, Info),
    form("exited MaxStartups throttling {own}", K::MaxStartups, Info),
    form("srclimit_penalise: ipv4: new {net} active penalty of {own}", K::Penalty, OWN),
    form("srclimit_penalise: ipv6: new {net} active penalty of {own}", K::Penalty, OWN),
    form("srclimit_penalise: ipv4: new {net} deferred penalty of {own}", K::Penalty, Info),
    form("srclimit_penalise: ipv6: new {net} deferred penalty of {own}", K::Penalty, Info),
    form("srclimit_penalise: {net}: activating {own}", K::Penalty, OWN),
    form("srclimit_penalise: {own}", K::Other, Info),
    form("Session process {n} unpriv child crash for connection from {host} to {own}", K::ChildCrash, OWN),
    form("session process {n} for connection from {host} to {own}", K::Other, Info),
    form("refused connect from {text} ({host})", K::ConnectionRefused, OWN),
    form("refused connect from {text}@{host}", K::ConnectionRefused, OWN),
    form("refused connect from {host}", K::ConnectionRefused, OWN),
    form("Connection from {peer} on {own}", K::ConnectionFrom, Info),
    form("Connection from {peer}", K::ConnectionFrom, Info),
    form("Server listening on {own}", K::Other, Info),
    form("Bind to port {n} on {own} failed: {detail}", K::ListenFailed, Info),
    form("Cannot bind any address{own}", K::ListenFailed, Info),
    form("accept: {detail}", K::AcceptFailed, Info),
    form("setsockopt SO_KEEPALIVE: {detail}", K::AcceptFailed, Info),
    form("Could not load host key{own}", K::HostKeyFailed, Info),
    form("Unable to load host key{own}", K::HostKeyFailed, Info),
    form("Could not stat AuthorizedKeysCommand{own}", K::KeysCommandFailed, Info),
    form("AuthorizedKeysCommand {own}", K::KeysCommandFailed, Info),
    form("Bad prime description in line {n}", K::BadModuli, Info),
    form("SSH: Server;Ltype: {text}", K::ConnectionFrom, Read(patched::connection)),

    // canohost.c and auth.c, remote_hostname: what the source's name resolver says.
    form("reverse mapping checking getaddrinfo for {text} [{host}] failed{own}", K::ReverseMapping, Info),
    form("reverse mapping checking gethostbyname for {text} failed - POSSIBLE BREAK-IN ATTEMPT!", K::ReverseMapping, Info),
    form("Address {host} maps to {text}", K::DnsMismatch, Info),
    form("Nasty PTR record {text} is set up for {host}, ignoring", K::ReverseMapping, Info),

    // session.c, serverloop.c, channels.c, monitor.c, loginrec.c and others, in the course of a session.
    form("connect to {detail}", K::ForwardingFailed, Info),
    form("connect_to {detail}", K::ForwardingFailed, Info),
    form("channel {n}: open failed: {detail}", K::ForwardingFailed, Info),
    form("server_input_channel_open: {detail}", K::ForwardingFailed, Info),
    form("Failed to create session: {detail}", K::SessionFailed, Info),
    form("subsystem request for {text}", K::Subsystem, Info),
    form("set_loginuid failed opening loginuid", K::LoginuidFailed, Info),
    form("Authentication service cannot retrieve user credentials", K::PamNoCredentials, Info),
    form("error trying to bind as user {text} (Invalid credentials)", K::LdapCredentials, Info),
];
