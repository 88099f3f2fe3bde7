//! What a decoder understood of a record.

use std::borrow::Cow;
use std::net::IpAddr;

/// Declares the kinds of event once: the variant, the name that rules, JSON and people use, and its meaning.
macro_rules! event_kinds {
    ($($variant:ident = $name:literal, $meaning:literal;)*) => {
        /// The kinds of event, a closed set. Rules name them by [`EventKind::name`].
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum EventKind {
            $(#[doc = $meaning] $variant,)*
        }

        impl EventKind {
            /// Every kind.
            pub const ALL: &'static [EventKind] = &[$(EventKind::$variant,)*];

            /// The name in rules and in JSON.
            pub fn name(self) -> &'static str {
                match self { $(EventKind::$variant => $name,)* }
            }

            /// What it means, in a few words for a person.
            pub fn meaning(self) -> &'static str {
                match self { $(EventKind::$variant => $meaning,)* }
            }
        }
    };
}

event_kinds! {
    FailedPassword = "failed_password", "a wrong password";
    FailedNone = "failed_none", "a login attempt without any credentials";
    FailedKeyboardInteractive = "failed_keyboard_interactive", "a wrong answer to a keyboard-interactive prompt";
    FailedPublickey = "failed_publickey", "a public key that was not accepted";
    FailedHostbased = "failed_hostbased", "a host-based login that was not accepted";
    FailedOther = "failed_other", "a failed login by another method";
    InvalidUser = "invalid_user", "a login as a user that does not exist";
    PostponedKeyboardInteractive = "postponed_keyboard_interactive", "a keyboard-interactive login has begun";
    UserNotAllowed = "user_not_allowed", "a login as a user that may not log in";
    RootLoginRefused = "root_login_refused", "a login as root where root may not log in";
    PamAuthError = "pam_auth_error", "PAM refused the credentials";
    PamUnknownUser = "pam_unknown_user", "PAM does not know the user";
    PamAuthFailure = "pam_auth_failure", "a PAM module reports a failed authentication";
    PamMoreFailures = "pam_more_failures", "a PAM module sums up further failed authentications";
    PamNoCredentials = "pam_no_credentials", "PAM cannot retrieve the user's credentials";
    PamUnknownModule = "pam_unknown_module", "a PAM module is missing";
    LdapCredentials = "ldap_credentials", "the LDAP server refused the credentials";
    MaxAttemptsExceeded = "max_attempts_exceeded", "too many attempts on one connection";
    TooManyFailures = "too_many_failures", "sshd hung up after too many failures";
    ChangeOfUser = "change_of_user", "an attempt to change the user or service in mid-login";
    ReceivedDisconnect = "received_disconnect", "the client hung up with a reason";
    ConnectionRefused = "connection_refused", "TCP wrappers refused the connection";
    ConnectionClosed = "connection_closed", "the client closed the connection before it logged in";
    ConnectionReset = "connection_reset", "the client reset the connection before it logged in";
    Disconnected = "disconnected", "the connection ended before a login";
    NoIdentification = "no_identification", "a client that sent no SSH identification";
    BadProtocolVersion = "bad_protocol_version", "a client that does not speak SSH";
    BannerExchange = "banner_exchange", "a client whose SSH banner makes no sense";
    KexIdentification = "kex_identification", "a client that hung up during identification";
    DispatchFatal = "dispatch_fatal", "a client that broke the protocol";
    LoginTimeout = "login_timeout", "a client that did not log in in time";
    NegotiationFailed = "negotiation_failed", "a client with which no algorithm is shared";
    Penalty = "penalty", "sshd penalises the source";
    MaxStartups = "max_startups", "sshd drops connections because too many are waiting";
    BadPacketLength = "bad_packet_length", "a packet of an impossible length";
    BadDhValue = "bad_dh_value", "a key exchange with a bad public value";
    BadString = "bad_string", "an attempt to break the challenge-response code";
    Scanned = "scanned", "a scanner of SSH versions";
    ChildCrash = "child_crash", "a client crashed sshd's unprivileged process";
    BadCheckBytes = "bad_check_bytes", "corrupted check bytes on the connection";
    ReverseMapping = "reverse_mapping", "the source's name has no such address";
    DnsMismatch = "dns_mismatch", "the source's address has a name that has another address";
    Accepted = "accepted", "a login that succeeded";
    SessionOpened = "session_opened", "a session began";
    SessionClosed = "session_closed", "a session ended";
    ConnectionFrom = "connection_from", "a connection was accepted";
    NetworkError = "network_error", "a connection broke";
    ForwardingFailed = "forwarding_failed", "a forwarded connection could not be made";
    ListenFailed = "listen_failed", "sshd cannot listen on its address";
    AcceptFailed = "accept_failed", "sshd could not accept a connection";
    HostKeyFailed = "host_key_failed", "sshd cannot load a host key";
    KeyFileModes = "key_file_modes", "a key file has the wrong owner or modes";
    KeysCommandFailed = "keys_command_failed", "sshd cannot run the command that fetches keys";
    KeyError = "key_error", "a number in a key or packet makes no sense";
    BadModuli = "bad_moduli", "a line of the moduli file makes no sense";
    LoginuidFailed = "loginuid_failed", "sshd cannot set the login uid";
    SessionFailed = "session_failed", "a session could not be created";
    Subsystem = "subsystem", "a subsystem was asked for";
    Other = "other", "sshd at work";
    Custom = "custom", "found by a decoder of your own";
}

impl EventKind {
    /// The kind with that name. [`EventKind::Custom`] is not among them: rules name the decoder.
    pub fn from_name(name: &str) -> Option<EventKind> {
        let named = |kind: &EventKind| *kind != EventKind::Custom && kind.name() == name;
        EventKind::ALL.iter().copied().find(named)
    }

    /// Whether an event of this kind belongs to a try to log in even where it tells of no attempt, and so counts for
    /// nothing there: clients offer all their keys before the right one, a prompt is no failure yet, and the reason for
    /// hanging up comes beside the end itself.
    pub(crate) fn accompanies_attempts(self) -> bool {
        matches!(
            self,
            EventKind::FailedPublickey
                | EventKind::PostponedKeyboardInteractive
                | EventKind::ReceivedDisconnect
        )
    }
}

/// How a line counts towards the attempts of its connection. sshd tells of one try in up to three lines; each trace
/// counts its own, and the attempts of a connection are the largest of them, plus what stands alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trace {
    /// No attempt.
    None,
    /// The user was named and turned down before any credential: `Invalid user`, `not allowed because`.
    Announced,
    /// A credential was refused: `Failed password`.
    Failed,
    /// PAM's telling of the same, for this many failures.
    Pam(u32),
    /// sshd's telling of what PAM said (`PAM: Authentication failure for …`), or that of a PAM module beside `pam_unix`.
    PamSaid,
    /// An attempt of its own, whatever else the connection said.
    Own,
    /// The end of a connection: an attempt (a probe) only where the connection made none.
    Ending,
}

/// What a decoder understood of one record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// What happened.
    pub kind: EventKind,
    /// The address that sshd itself wrote, never one that a client could have written. Canonical: a v4-mapped
    /// address is IPv4.
    pub source: Option<IpAddr>,
    /// Whether messages of this form say nothing of the source, not even its name.
    pub sourceless: bool,
    /// The source port.
    pub port: Option<u16>,
    /// The user name that the client gave.
    pub user: Option<Cow<'a, [u8]>>,
    /// Whether the message says that the user does not exist (or is `illegal`).
    pub invalid_user: bool,
    /// Whether the line is evidence of hostile behaviour by the source.
    pub attack: bool,
    /// How it counts towards the connection's attempts.
    pub trace: Trace,
    /// How many times it happened: N for `message repeated N times`, otherwise 1. At least 1.
    pub repeated: u32,
    /// The method of a login (`publickey`, `password`, `keyboard-interactive/pam`), what negotiation found missing
    /// (`cipher`, `key exchange method`), or the reason of a failure (`Connection refused`), as sshd writes it; empty
    /// where the form has none.
    pub detail: &'a [u8],
    /// The decoder that understood it: `sshd`, or the name of a user's own.
    pub decoder: Cow<'a, str>,
}

impl Event<'_> {
    /// What to call it: its kind or, where a decoder of the user's own found it, that decoder.
    pub fn name(&self) -> &str {
        match self.kind {
            EventKind::Custom => &self.decoder,
            kind => kind.name(),
        }
    }
}
