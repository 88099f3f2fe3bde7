#!/usr/bin/env python3
"""Makes sshd.jsonl: real sshd, real clients, and for each line what is known of it by construction.

    make.py ROOT...  > sshd.jsonl

Each ROOT is a directory with a Debian in it that has openssh-server (see README.md); this machine has the clients. It
is left as it is: sshd runs in a copy that lives in memory, in namespaces of its own. Needs root and Python 3.8.
"""
import json
import os
import re
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time

SERVER = {4: "192.0.2.1", 6: "2001:db8:f::1"}
PASSWORD = "correct horse battery staple"
PASSWORD_HASH = ("$6$xdpbanlab$m/5Bjkw1dMzfnPYv2jVT04g6viWAucB.sorB9AzVDgMqVNy8YxKmNthtmP/XbUIbtiorRYfeDNCdGFZQfHh8v/")
# alice and bob may log in, carol has no shell, dave's account is locked, erin is turned away by name.
USERS = {"alice": ("/bin/sh", PASSWORD_HASH), "bob": ("/bin/sh", PASSWORD_HASH),
         "carol": ("/nonexistent", PASSWORD_HASH), "dave": ("/bin/sh", "!" + PASSWORD_HASH),
         "erin": ("/bin/sh", PASSWORD_HASH)}

# What tells of an attack, and Wazuh's rule where it has one.
UNKNOWN = [("Invalid user ", 5710), ("Failed password for invalid user ", 5710),
           ("Failed keyboard-interactive/pam for invalid user ", 5710), ("Failed none for invalid user ", 5710),
           ("Failed publickey for invalid user ", 5710), ("PAM: .* for illegal user ", None),
           ("pam_unix.*authentication failure;", 5716), ("closed by invalid user ", 5710),
           ("reset by invalid user ", 5710), ("Disconnected from invalid user ", 5710)]
WRONG = [("Failed password for (?!invalid)", 5760), ("Failed keyboard-interactive/pam for (?!invalid)", 5760),
         ("PAM: Authentication (failure|error) for (?!illegal)", 5760), ("pam_unix.*authentication failure;", 5716),
         ("PAM [0-9]+ more authentication failure", 5758), ("closed by authenticating user ", 5722),
         ("reset by authenticating user ", 5762), ("Disconnected from authenticating user ", 5761),
         ("maximum authentication attempts exceeded", 5758), ("Too many authentication failures", 5758)]
REFUSED = [("not allowed because", 5718), ("Access denied for user", 5718)] + UNKNOWN[1:] + WRONG
ROOT = [("ROOT LOGIN REFUSED", 5716)] + WRONG
ENDED = [("Connection (closed|reset) by [0-9a-f]", None), ("Disconnected from [0-9a-f]", None)]


class Scenario:
    """`tells`: what the lines hold that are evidence of an attack; no other line of the scenario is. None: an
    ordinary client, of whom nothing may be held."""

    def __init__(self, name, act, tells=None, user=None, config="", pam=None, v6=False, least=None):
        self.name, self.act, self.tells, self.user, self.config = name, act, tells, user, config
        self.pam, self.v6, self.least = pam, v6, least


# The clients.

def ssh(host, user, *options, password=None, key=None, command="true", within=20):
    """One connection of a real ssh."""
    env = dict(os.environ, SSH_ASKPASS=host.askpass, SSH_ASKPASS_REQUIRE="force", DISPLAY=":0")
    env["LAB_PASSWORD"] = password or "wrong"
    env["LAB_PAUSE"] = "1" if "slow" in options else "0"
    words = ["ssh", "-F", "none", "-b", host.client, "-p", str(host.port), "-l", user, "-o", "StrictHostKeyChecking=no",
             "-o", "UserKnownHostsFile=/dev/null", "-o", "IdentityAgent=none", "-o", "IdentitiesOnly=yes",
             "-o", "LogLevel=ERROR", "-o", "ConnectTimeout=10"]
    words += ["-i", key] if key else ["-o", "PubkeyAuthentication=no"]
    for option in options:
        if option != "slow":
            words += ["-o", option]
    words += [host.server, command]
    return subprocess.run(words, env=env, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL, timeout=within).returncode


def login(user, *options, **further):
    return lambda host: ssh(host, user, *options, **further)


def password(user, *options, **further):
    return login(user, "PreferredAuthentications=password", "NumberOfPasswordPrompts=1", *options, **further)


def interactive(user, *options, **further):
    return login(user, "PreferredAuthentications=keyboard-interactive", "NumberOfPasswordPrompts=1", *options, **further)


def by_key(user, which, *options):
    return lambda host: ssh(host, user, "PreferredAuthentications=publickey", *options, key=getattr(host, which))


def connect(host):
    raw = socket.create_connection((host.server, 22), 5, (host.client, 0))
    raw.settimeout(5)
    return raw


def hang_up(raw, reset):
    if reset:
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    raw.close()


def says(data, reset=False, pause=0.3):
    """Sends bytes and hangs up."""
    def act(host):
        raw = connect(host)
        raw.recv(256)
        try:
            raw.sendall(data)
            time.sleep(pause)
        except OSError:
            pass
        hang_up(raw, reset)
    return act


def waits(seconds):
    def act(host):
        raw = connect(host)
        time.sleep(seconds)
        raw.close()
    return act


def through(user, meddle):
    """A login that waits a second before its password, through a relay that meddles then: `close`, `reset`, `flip`."""
    def act(host):
        listener = socket.create_server(("127.0.0.1", 2022))
        listener.settimeout(5)
        far = connect(host)
        start = time.monotonic()

        def relay(near):
            near.settimeout(0.05)
            far.settimeout(0.05)
            while time.monotonic() < start + 3:
                for one, other in ((near, far), (far, near)):
                    try:
                        data = one.recv(65536)
                    except socket.timeout:
                        continue
                    except OSError:
                        return
                    if not data:
                        return
                    if meddle == "flip" and one is near and time.monotonic() > start + 0.8:
                        data = data[:-1] + bytes([data[-1] ^ 1])
                    other.sendall(data)
                if meddle != "flip" and time.monotonic() > start + 0.8:
                    return

        def run():
            near = listener.accept()[0]
            try:
                relay(near)
            except OSError:
                pass
            hang_up(far, meddle == "reset")
            near.close()

        worker = threading.Thread(target=run)
        worker.start()
        real = host.server, host.client, host.port
        host.server, host.client, host.port = "127.0.0.1", "127.0.0.1", 2022
        ssh(host, user, "PreferredAuthentications=password", "slow")
        host.server, host.client, host.port = real
        worker.join()
        listener.close()
    return act


def crowd(host):
    """More connections that wait than sshd takes."""
    waiting = [connect(host) for _ in range(4)]
    time.sleep(0.5)
    for raw in waiting:
        raw.close()


def penalised(host):
    for _ in range(3):
        ssh(host, "nobody-here", "PreferredAuthentications=password", "NumberOfPasswordPrompts=1")
        time.sleep(0.3)


INJECTIONS = [
    "x from 8.8.8.8 port 22 ssh2", "root from 8.8.8.8", "Invalid user root from 8.8.8.8", "a b c",
    "admin 8.8.8.8 port 22 [preauth]", "x not allowed because not listed in AllowUsers", "user= rhost=8.8.8.8 ",
    "\u00fcml\u00e4ut", "x" * 300, "authenticating user root 8.8.8.8 port 22", "%s%n",
]


def scenarios():
    yield Scenario("unknown user, password", password("ghost1"), UNKNOWN, "ghost1")
    yield Scenario("unknown user, password, IPv6", password("ghost2"), UNKNOWN, "ghost2", v6=True)
    yield Scenario("unknown user, password, verbose", password("ghost3"), UNKNOWN, "ghost3", "LogLevel VERBOSE")
    yield Scenario("unknown user, three passwords",
                   login("ghost4", "PreferredAuthentications=password", "NumberOfPasswordPrompts=3"), UNKNOWN
                   + [("PAM 2 more", 5758)], "ghost4")
    yield Scenario("unknown user, keyboard-interactive", interactive("ghost5"), UNKNOWN
                   + [("closed by [0-9]", None)], "ghost5")
    yield Scenario("unknown user, key", by_key("ghost6", "stranger"), UNKNOWN, "ghost6", "LogLevel VERBOSE")
    yield Scenario("unknown user, no method", login("ghost7", "PreferredAuthentications=hostbased"), UNKNOWN, "ghost7",
                   "LogLevel VERBOSE")
    yield Scenario("wrong password", password("bob"), WRONG, "bob")
    yield Scenario("wrong password, IPv6, verbose", password("bob"), WRONG, "bob", "LogLevel VERBOSE", v6=True)
    yield Scenario("wrong password, three times",
                   login("bob", "PreferredAuthentications=password", "NumberOfPasswordPrompts=3"), WRONG, "bob")
    yield Scenario("wrong answer, keyboard-interactive", interactive("bob"), WRONG, "bob", pam=True)
    yield Scenario("wrong password of root", password("root"), WRONG, "root", "PermitRootLogin yes")
    yield Scenario("too many attempts", login("bob", "PreferredAuthentications=password", "NumberOfPasswordPrompts=3"),
                   WRONG, "bob", "MaxAuthTries 2")
    yield Scenario("too many attempts, unknown user",
                   login("ghost8", "PreferredAuthentications=password", "NumberOfPasswordPrompts=3"),
                   UNKNOWN + WRONG[-2:-1] + [("Too many authentication failures", 5710), ("PAM 1 more", 5758)],
                   "ghost8", "MaxAuthTries 2")
    yield Scenario("strange key", by_key("bob", "stranger"), WRONG, "bob", "LogLevel VERBOSE")
    for what, config, user in [("DenyUsers", "DenyUsers erin", "erin"), ("AllowUsers", "AllowUsers alice", "bob"),
                               ("AllowGroups", "AllowGroups nogroup", "bob"), ("no shell", "", "carol")]:
        yield Scenario("not allowed, " + what, password(user), REFUSED, user, config)
        yield Scenario("not allowed, right password, " + what, password(user, password=PASSWORD), REFUSED, user, config)
    yield Scenario("locked account", password("dave"), REFUSED, "dave", pam=False)
    yield Scenario("locked account, verbose", password("dave"), REFUSED, "dave", "LogLevel VERBOSE", pam=False)
    yield Scenario("root refused", password("root"), ROOT, "root", "PermitRootLogin no")
    yield Scenario("root refused with a password", password("root"), ROOT, "root", "PermitRootLogin prohibit-password")
    for number, name in enumerate(INJECTIONS):
        yield Scenario(f"odd name {number}", password(name), UNKNOWN, name)
    yield Scenario("odd name, closed", login(INJECTIONS[0], "PreferredAuthentications=hostbased"), UNKNOWN,
                   INJECTIONS[0], "LogLevel VERBOSE")
    yield Scenario("odd name, not allowed", password("erin"), REFUSED, "erin",
                   "DenyUsers erin\nBanner none\nLogLevel VERBOSE")
    yield Scenario("closed in mid-login", through("bob", "close"), WRONG, "bob")
    yield Scenario("reset in mid-login", through("bob", "reset"), WRONG, "bob")
    yield Scenario("closed in mid-login, unknown user", through("ghost9", "close"), UNKNOWN, "ghost9")
    yield Scenario("reset in mid-login, unknown user", through("ghost10", "reset"), UNKNOWN, "ghost10")
    yield Scenario("corrupted packet", through("bob", "flip"), [("ssh_dispatch_run_fatal", 5748)] + WRONG)
    yield Scenario("nothing said", waits(0.3), ENDED)
    yield Scenario("nothing said, IPv6, verbose", waits(0.3), ENDED + [("kex_exchange_identification", 5706)],
                   config="LogLevel VERBOSE", v6=True)
    yield Scenario("reset at once", says(b"", reset=True), ENDED)
    probe = [("banner exchange: ", 5701), ("Bad protocol version identification", 5701)]
    yield Scenario("not SSH", says(b"GET / HTTP/1.0\r\n\r\n"), probe + ENDED)
    yield Scenario("not SSH, binary", says(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03"), probe + ENDED)
    yield Scenario("long banner", says(b"x" * 9000 + b"\r\n"), probe + ENDED)
    yield Scenario("many lines before the banner", says(b"x\r\n" * 2000), probe + ENDED)
    yield Scenario("banner of an injection", says(b"' from 8.8.8.8 port 22\r\n"), probe + ENDED)
    yield Scenario("old protocol", says(b"SSH-1.5-old\r\n"), [("Protocol major versions differ", None)] + probe + ENDED)
    yield Scenario("closed after the banner", says(b"SSH-2.0-probe\r\n"), ENDED)
    yield Scenario("reset after the banner", says(b"SSH-2.0-probe\r\n", reset=True), ENDED)
    yield Scenario("garbage for key exchange", says(b"SSH-2.0-probe\r\n" + b"\xff" * 200),
                   [("Bad packet length", None), ("ssh_dispatch_run_fatal", 5748), ("Packet corrupt", None)] + ENDED)
    offers = {"Ciphers aes256-gcm@openssh.com": ("Ciphers=aes128-ctr", 5753),
              "KexAlgorithms curve25519-sha256": ("KexAlgorithms=ecdh-sha2-nistp256", 5752),
              "MACs hmac-sha2-512\nCiphers aes128-ctr": ("MACs=hmac-sha2-256", 5759),
              "HostKeyAlgorithms ssh-ed25519": ("HostKeyAlgorithms=rsa-sha2-512", 5752)}
    for config, (offer, rule) in offers.items():
        further = ["Ciphers=aes128-ctr"] if "MACs" in offer else []
        rule = None if "HostKey" in offer else rule
        yield Scenario("nothing in common, " + offer, login("bob", offer, *further),
                       [("Unable to negotiate", rule)], config=config)
    timeout = [("Timeout before authentication", 5704)] + ENDED
    # Debian's 9.2 says nothing of it: the message was written in a signal handler (CVE-2024-6387).
    yield Scenario("login timeout", waits(3.5), timeout, config="LoginGraceTime 2", least="10")
    yield Scenario("login timeout after the banner", says(b"SSH-2.0-slow\r\n", pause=3.5), timeout,
                   config="LoginGraceTime 2", least="10")
    yield Scenario("too many waiting", crowd, ENDED, config="MaxStartups 1:100:1")
    penalty = [(r"drop connection #\d+ .* penalty", None), ("srclimit_penalise: .*active penalty", None)]
    yield Scenario("penalty", penalised, UNKNOWN + penalty, config="LogLevel VERBOSE\nPerSourcePenalties authfail:20 min:1",
                   least="10")
    yield Scenario("penalty, IPv6", penalised, UNKNOWN + penalty, v6=True, least="10",
                   config="LogLevel VERBOSE\nPerSourcePenalties authfail:20 min:1")
    # Ordinary users.
    for level in ("INFO", "VERBOSE"):
        config = "LogLevel " + level
        yield Scenario("login by password, " + level, password("alice", password=PASSWORD), user="alice", config=config)
        yield Scenario("login by key, " + level, by_key("alice", "key"), user="alice", config=config)
        yield Scenario("login by key, IPv6, " + level, by_key("alice", "key"), user="alice", config=config, v6=True)
        yield Scenario("login by the second key, " + level,
                       lambda host: ssh(host, "alice", "PreferredAuthentications=publickey", "IdentityFile=" + host.key,
                                        key=host.stranger), user="alice", config=config)
    yield Scenario("login by keyboard-interactive", interactive("alice", password=PASSWORD), user="alice", pam=True)
    yield Scenario("login of root by key", by_key("root", "key"), user="root", config="PermitRootLogin prohibit-password")
    yield Scenario("sftp", login("alice", "PreferredAuthentications=password", "RequestTTY=no", password=PASSWORD,
                                 command="exit 3"), user="alice")
    yield Scenario("killed session", lambda host: killed(host), user="alice", config="LogLevel VERBOSE")


def killed(host):
    """A session whose client dies without a word."""
    try:
        ssh(host, "alice", "PreferredAuthentications=password", password=PASSWORD, command="sleep 1", within=0.8)
    except subprocess.TimeoutExpired:
        pass
    time.sleep(1)


# The host.

class Syslog(threading.Thread):
    """What arrives at /dev/log, as the lines of rsyslog's traditional file format."""

    def __init__(self, path):
        super().__init__(daemon=True)
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(path)
        os.chmod(path, 0o666)
        self.lines = []

    def run(self):
        while True:
            text = self.socket.recv(65536).rstrip(b"\n\0").split(b">", 1)[1]
            text = b"".join(b"#%03o" % c if c < 32 or c == 127 else bytes([c]) for c in text)
            self.lines.append((text[:16] + b"guarded " + text[16:]).decode("utf-8", "backslashreplace"))

    def quiet(self):
        """Waits until nothing more comes."""
        known, since = -1, time.monotonic()
        while time.monotonic() < since + 0.4:
            if len(self.lines) != known:
                known, since = len(self.lines), time.monotonic()
            time.sleep(0.02)


class Host:
    def __init__(self, root, work):
        self.root, self.work = root, work
        self.syslog = Syslog(root + "/dev/log")
        self.syslog.start()
        os.makedirs(root + "/run/sshd", exist_ok=True)
        for number, (name, (shell, hashed)) in enumerate(USERS.items(), 61001):
            for file, line in (("passwd", f"{name}:x:{number}:{number}::/:{shell}"),
                               ("shadow", f"{name}:{hashed}:19000:0:99999:7:::"), ("group", f"{name}:x:{number}:")):
                with open(f"{root}/etc/{file}", "a") as f:
                    f.write(line + "\n")
        self.key, self.stranger, self.askpass = (work + "/" + name for name in ("key", "stranger", "askpass"))
        for key in (self.key, self.stranger, root + "/etc/lab_host_key"):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "lab", "-f", key], check=True)
        with open(self.key + ".pub") as public, open(root + "/etc/lab_keys", "w") as f:
            f.write(public.read())
        with open(self.askpass, "w") as f:
            f.write('#!/bin/sh\nsleep "$LAB_PAUSE"\nprintf \'%s\\n\' "$LAB_PASSWORD"\n')
        os.chmod(self.askpass, 0o755)
        version = subprocess.run(["chroot", root, "sh", "-c", "exec sshd -V 2>&1 || true"], stdout=subprocess.PIPE,
                                 text=True, env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}).stdout
        self.version = re.search(r"OpenSSH_([0-9.]+(p[0-9]+)?)", version).group(1)

    def play(self, number, scenario, pam):
        """Runs one scenario from an address of its own, and returns what sshd said, line by line, with what is known."""
        family = 6 if scenario.v6 else 4
        self.client = f"2001:db8:{number:x}::7" if scenario.v6 else f"203.0.113.{number}"
        self.server, self.port = SERVER[family], 22
        subprocess.run(["ip", "address", "add", f"{self.client}/{128 if scenario.v6 else 32}", "dev", "lo"]
                       + (["nodad"] if scenario.v6 else []), check=True)
        config = [scenario.config, f"UsePAM {'yes' if pam else 'no'}",
                  f"KbdInteractiveAuthentication {'yes' if pam else 'no'}",
                  "PasswordAuthentication yes", "HostKey /etc/lab_host_key", "AuthorizedKeysFile /etc/lab_keys",
                  f"ListenAddress {self.server}", "PidFile none", "StrictModes no", "UseDNS no", "PrintMotd no",
                  "PrintLastLog no", "Subsystem sftp internal-sftp"]
        if self.version.startswith("10"):
            config.append("PerSourcePenalties no")
        with open(self.root + "/etc/lab_config", "w") as f:
            f.write("\n".join(config) + "\n")
        self.syslog.lines.clear()
        sshd = subprocess.Popen(["chroot", self.root, "/usr/sbin/sshd", "-D", "-f", "/etc/lab_config"],
                                stdin=subprocess.DEVNULL)
        try:
            limit = time.monotonic() + 10
            while not any("Server listening" in line for line in self.syslog.lines):
                if sshd.poll() is not None or time.monotonic() > limit:
                    raise SystemExit(f"{scenario.name}: sshd does not start: {self.syslog.lines}")
                time.sleep(0.01)
            scenario.act(self)
            self.syslog.quiet()
        finally:
            sshd.terminate()
            sshd.wait()
        self.syslog.quiet()
        # Its start and its end are the same every time.
        told = [line for line in self.syslog.lines if not re.search("Server listening|Received signal 15", line)]
        return [self.known(line, scenario, pam) for line in told]

    def known(self, line, scenario, pam):
        record = dict(line=line, attack=False, srcip=None, user=None, rule_id=None, scenario=scenario.name,
                      sshd=self.version, pam=pam)
        for tell, rule in scenario.tells or []:
            if re.search(tell, line):
                record.update(attack=True, srcip=self.client, rule_id=rule)
                break
        named = self.client in line
        if named:
            record["srcip"] = self.client
        elif record["attack"]:
            # The address is the connection's, which the lines at LogLevel INFO may not have named yet.
            record["attack"] = True if "VERBOSE" in scenario.config else None
            record["srcip"] = record["srcip"] if record["attack"] else None
        user = scenario.user
        if user and record["attack"] and named and re.search(r"(user |for |user=)" + re.escape(user), line):
            record["user"] = user
        return record


def inside(root):
    """All scenarios with the sshd of `root`; runs in namespaces of its own."""
    run = lambda *words: subprocess.run(words, check=True)
    run("ip", "link", "set", "lo", "up")
    for address in (SERVER[4] + "/32", SERVER[6] + "/128"):
        run("ip", "address", "add", address, "dev", "lo")
    with tempfile.TemporaryDirectory() as work:
        run("mount", "-t", "tmpfs", "tmpfs", work)
        try:
            play_all(root, work, run)
        finally:
            # Lazily: a process of the last session may still stand in it.
            run("umount", "-R", "-l", work)


def play_all(root, work, run):
    for part in ("upper", "work", "root"):
        os.mkdir(f"{work}/{part}")
    run("mount", "-t", "overlay", "overlay", "-o",
        f"lowerdir={root},upperdir={work}/upper,workdir={work}/work", f"{work}/root")
    run("mount", "-t", "proc", "proc", f"{work}/root/proc")
    run("mount", "-t", "devpts", "-o", "newinstance,ptmxmode=0666", "devpts", f"{work}/root/dev/pts")
    host = Host(f"{work}/root", work)
    number = 0
    for pam in (False, True):
        for scenario in scenarios():
            number += 1
            if scenario.pam not in (None, pam) or (scenario.least and not host.version.startswith(scenario.least)):
                continue
            lines = host.play(number, scenario, pam)
            told = any(line["attack"] for line in lines)
            if told != (scenario.tells is not None):
                print(f"{host.version} {'PAM' if pam else 'no PAM'} {scenario.name}: an attack is "
                      f"{'told' if told else 'not told'}: {json.dumps([line['line'] for line in lines], indent=1)}",
                      file=sys.stderr)
            for line in lines:
                print(json.dumps(line, ensure_ascii=False), flush=True)


def main():
    if sys.argv[1:2] == ["--inside"]:
        return inside(sys.argv[2])
    if os.geteuid() != 0 or len(sys.argv) < 2:
        sys.exit(__doc__)
    for root in sys.argv[1:]:
        subprocess.run(["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", sys.executable, __file__,
                        "--inside", os.path.abspath(root)], check=True)


main()
