package packaging

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/sigild/sigild/internal/testhsm"
)

// Users inside the container: with a role, without one, and outside the group.
const (
	knownUID, unknownUID, strangerUID = 4321, 4322, 4323
	appSocket                         = "/run/sigild/sigild.sock"
)

// One life of the package under a real systemd: installed, set up, started, looked
// at from inside its sandbox, called, hurt, upgraded, removed, installed again.
func TestUnderSystemd(t *testing.T) {
	b := built(t)
	c := config(t, "newer")
	c.Version = "0.1.1"
	if err := os.Mkdir(c.Out, 0o755); err != nil {
		t.Fatal(err)
	}
	newer, err := c.pack(t.Context(), b.Tree, "2.34", "deb")
	if err != nil {
		t.Fatal(err)
	}
	share := shared(t, map[string]string{"sigild.deb": b.Deb, "newer.deb": newer})
	began := time.Now()
	m := startMachine(t, share)
	step := func(what string) {
		t.Logf("%6.2f s  %s", time.Since(began).Seconds(), what)
	}
	step("booted")
	m.install(t)
	step("installed and set up")
	id := m.first(t)
	step("started")
	m.reloadPolicies(t)
	step("policy files reloaded")
	m.verifyUnits(t)
	step("units verified")
	m.probeSandbox(t)
	step("sandbox probed")
	m.askAsUsers(t)
	step("callers told apart")
	m.restartUnderLoad(t)
	step("restarted")
	m.tamper(t)
	step("tampered with")
	m.upgradeUnderLoad(t)
	step("upgraded")
	m.kill(t)
	step("killed")
	m.hang(t)
	step("hung")
	m.losePin(t)
	step("pin lost and found")
	m.purge(t, id)
	step("purged and installed again")
	if took := time.Since(began); took > 30*time.Second {
		t.Logf("the cycle took %v; it is meant to take 15 s", took)
	}
}

// shared is a folder that a machine sees as /share: these files, by name, and this
// binary as roles.
func shared(t *testing.T, files map[string]string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	files["roles"] = self
	share := t.TempDir()
	for name, from := range files {
		if err := os.WriteFile(filepath.Join(share, name), read(t, from), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(share, 0o755); err != nil {
		t.Fatal(err)
	}
	return share
}

// install brings the package and sets the appliance up as docs/operating.md says.
func (m *machine) install(t *testing.T) {
	m.shell(`
dpkg -i /share/sigild.deb
test "$(stat -c %a:%U /var/lib/sigild)" = 700:sigild
getent group sigil-clients sigil-admin >/dev/null
for u in sigild.socket sigild-admin.socket sigild.service; do
	systemctl is-enabled --quiet $u
	no systemctl is-active --quiet $u
done
# Before init nothing listens, and a start says why it does nothing.
systemctl start sigild.service
test "$(systemctl show -P ConditionResult sigild.service)" = no
test ! -e /run/sigild/sigild.sock
`)
	if _, err := testhsm.Module(); err != nil {
		t.Fatal(err)
	}
	m.shell(fmt.Sprintf(`
echo 'directories.tokendir = /var/lib/sigild/tokens' >/etc/sigild/softhsm2.conf
setpriv --reuid=sigild --regid=sigild --clear-groups mkdir -m 0700 /var/lib/sigild/tokens
SOFTHSM2_CONF=/etc/sigild/softhsm2.conf setpriv --reuid=sigild --regid=sigild --clear-groups \
	softhsm2-util --init-token --free --label sigild --so-pin 87654321 --pin 12345678 >/dev/null
printf 12345678 | systemd-creds encrypt --name=hsm-pin - /etc/credstore.encrypted/sigild.hsm-pin
install -D -m 0644 -t /etc/systemd/system/sigild.service.d /usr/share/doc/sigild/examples/credential.conf
# RestartSteps= and PrivateUsers=identity, where they are known.
if dpkg --compare-versions "$(dpkg-query -W -f '${Version}' systemd)" ge 257; then
	install -m 0644 -t /etc/systemd/system/sigild.service.d /usr/share/doc/sigild/examples/debian13.conf
fi
systemctl daemon-reload
sed -i -e 's|pin_file: /etc/sigild/hsm-pin|pin_file: credential:hsm-pin|' \
	-e 's|SOFTHSM2_CONF: .*|SOFTHSM2_CONF: /etc/sigild/softhsm2.conf|' \
	-e '/^pre_parameters:/,/target:/s|target: .*|target: 0|' \
	-e '/^  app:/,/gids/s|uids: .*|uids: [0, %d]|' -e '/^  operator:/,/gids/s|uids: .*|uids: [0]|' /etc/sigild/sigild.yaml
cd /root
sigilctl credential create --purpose operator --name alice --out alice
systemd-run --quiet --pipe --wait --collect --working-directory=/root \
	--property=LoadCredentialEncrypted=hsm-pin:/etc/credstore.encrypted/sigild.hsm-pin \
	sigilctl init --operator alice.json --quorum 1
chown -R sigild: /var/lib/sigild
mkdir -p /home/somebody; touch /tmp/of-the-host; printf '#!/bin/sh\n' >/var/lib/sigild/program; chmod 755 /var/lib/sigild/program; chown sigild: /var/lib/sigild/program
systemctl set-environment GOLOG_FILE=/var/lib/sigild/log IPFS_LOGGING=debug GODEBUG=gctrace=1
`, knownUID))
}

// first starts the daemon and returns the appliance's id.
func (m *machine) first(t *testing.T) string {
	m.shell(`
systemctl start sigild.service
systemctl is-active --quiet sigild.socket sigild-admin.socket sigild.service
test "$(systemctl show -P StatusText sigild.service)" = unsealed
test "$(stat -c %a:%U:%G /run/sigild/sigild.sock)" = 660:sigild:sigil-clients
test "$(stat -c %a:%U:%G /run/sigild/admin.sock)" = 660:sigild:sigil-admin
test "$(stat -c %a:%U /var/lib/sigild)" = 700:sigild
sigilctl status
`)
	a := as[answer](m, nil, "caller", appSocket)
	if a.Error != "" || a.Sealed || a.Version != "0.1.0" || a.ID == "" {
		t.Fatalf("status: %+v", a)
	}
	return a.ID
}

// verifyUnits looks at the installed units with systemd's own eyes.
func (m *machine) verifyUnits(t *testing.T) {
	for _, unit := range []string{"sigild.service", "sigild.socket", "sigild-admin.socket"} {
		if out := m.run("systemd-analyze", "verify", "/usr/lib/systemd/system/"+unit); strings.Contains(out, "sigild") {
			t.Errorf("verify %s says:\n%s", unit, out)
		}
	}
	out := m.run("systemd-analyze", "security", "--no-pager", "--threshold=8", "sigild.service")
	t.Log(strings.TrimSpace(out[strings.LastIndex(strings.TrimSpace(out), "\n"):]))
	m.shell("man --warnings -l /usr/share/man/man8/sigild.8.gz >/dev/null; man 1 sigilctl >/dev/null; man 5 sigild.yaml >/dev/null")
}

// jail is what the sandbox must answer.
var jail = map[string]string{
	"unix socket": "ok", "inet socket": "EAFNOSUPPORT", "inet6 socket": "EAFNOSUPPORT", "netlink socket": "EAFNOSUPPORT",
	"packet socket": "EAFNOSUPPORT", "vsock socket": "EAFNOSUPPORT", "interfaces": "0",
	"write the state": "ok", "write /tmp of its own": "ok", "write /etc": "EROFS", "write /etc/sigild": "EROFS", "write /usr/bin": "EROFS",
	"write /var/lib": "EROFS", "write /run": "EROFS", "write /run/sigild": "EROFS", "mode of the state": "0700",
	"read the configuration": "ok", "read /etc/shadow": "EACCES", "read /root": "EACCES", "read /srv": "EACCES",
	"read the host's /tmp": "ENOENT", "read /proc/1": "ENOENT", "read /proc/meminfo": "ENOENT", "read /proc/self": "ok",
	"open /dev/mem": "ENOENT", "open /dev/kmsg": "ENOENT", "open /dev/rtc": "ENOENT", "open /dev/fuse": "ENOENT", "open /dev/net/tun": "ENOENT", "open /dev/urandom": "ok",
	"run /bin/sh": "EACCES", "run /usr/bin/id": "EACCES",
	"run a program of ours in /var/lib/sigild": "EACCES", "run a program of ours in /tmp": "EACCES",
	"run a program of ours in /var/tmp": "EACCES", "run a program of ours in /dev/shm": "EACCES",
	"memory to write": "ok", "lock memory": "ok",
	"a user namespace": "EPERM", "a mount namespace": "EPERM", "mount": "EPERM", "ptrace": "EPERM", "bpf": "EPERM", "perf_event_open": "EPERM", "keyctl": "EPERM",
	"io_uring_setup": "EPERM", "kexec_load": "EPERM", "setuid 0": "EPERM", "set the clock": "EPERM", "set the host name": "EPERM",
	"a setuid file": "EPERM", "real-time scheduling": "EPERM", "personality": "EPERM",
	"CapEff": "0000000000000000", "CapPrm": "0000000000000000", "CapBnd": "0000000000000000", "CapAmb": "0000000000000000",
	"NoNewPrivs": "1", "Seccomp": "2", "core limit": "0",
	"$GOLOG_FILE": "", "$IPFS_LOGGING": "", "$GODEBUG": "", "$GOTRACEBACK": "single",
}

// jailEither is what systemd's and the kernel's versions answer differently.
var jailEither = map[string][]string{
	"memory to write and run": {"EPERM", "EACCES"}, "memory written, then run": {"EPERM", "EACCES"},
	"read /home": {"EACCES", "ENOENT"}, "write /dev": {"EACCES", "EROFS", "EPERM"},
}

// imprison runs a prisoner in a unit's own sandbox and returns what it found there.
func (m *machine) imprison(t *testing.T, unit string) (found map[string]string) {
	t.Helper()
	m.shell(`
sed -E -e '/^(ExecStart|Type|NotifyAccess|WatchdogSec|Restart|RestartSec|Requires|RuntimeMaxSec|RuntimeDirectory)=/d' "/usr/lib/systemd/system/` + unit + `" >/run/systemd/system/prisoner.service
cat >>/run/systemd/system/prisoner.service <<'END'
[Service]
Type=oneshot
ExecStart=/share/roles
ExecPaths=/share/roles
Environment=` + roleVariable + `=prisoner
StandardOutput=truncate:/run/prisoner.json
END
systemctl daemon-reload
systemctl start prisoner.service
`)
	if text := m.run("cat", "/run/prisoner.json"); json.Unmarshal([]byte(text), &found) != nil {
		t.Fatalf("the prisoner of %s said %q", unit, text)
	}
	return found
}

// probeSandbox runs a prisoner in the daemon's sandbox, and looks at the daemon itself.
func (m *machine) probeSandbox(t *testing.T) {
	found := m.imprison(t, "sigild.service")
	for what, want := range jail {
		if got, asked := found[what]; got != want || !asked {
			t.Errorf("%s: %q, want %q", what, got, want)
		}
	}
	for what, want := range jailEither {
		if !slices.Contains(want, found[what]) {
			t.Errorf("%s: %q, want one of %q", what, found[what], want)
		}
	}
	status := m.shell(`cat /proc/$(systemctl show -P MainPID sigild.service)/status; id -u sigild`)
	for _, want := range []string{"CapBnd:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
		if !strings.Contains(status, want) {
			t.Errorf("the daemon itself lacks %q:\n%s", want, status)
		}
	}
}

// askAsUsers: the kernel names the caller, and the journal has it as a field.
func (m *machine) askAsUsers(t *testing.T) {
	user := func(uid int, group string) []string {
		return []string{"setpriv", fmt.Sprintf("--reuid=%d", uid), "--regid=" + group, "--clear-groups"}
	}
	// A caller in a unit of its own; first of all, so that the daemon has looked for no other.
	unit := []string{"systemd-run", "--quiet", "--pipe", "--wait", "--collect", "--unit=bot-of-users", "--property=UnsetEnvironment=GOLOG_FILE GODEBUG"}
	if a := as[answer](m, append(unit, user(unknownUID, "sigil-clients")...), "caller", appSocket); a.Reason != "CALLER_NOT_ALLOWED" {
		t.Errorf("a caller without a role, in a unit: %+v", a)
	}
	if a := as[answer](m, user(knownUID, "sigil-clients"), "caller", appSocket); a.Error != "" || a.Sealed {
		t.Errorf("a caller with a role: %+v", a)
	}
	if a := as[answer](m, user(unknownUID, "sigil-clients"), "caller", appSocket); a.Reason != "CALLER_NOT_ALLOWED" {
		t.Errorf("a caller without a role: %+v", a)
	}
	if a := as[answer](m, user(strangerUID, "nogroup"), "caller", appSocket); !strings.Contains(a.Error, "permission denied") {
		t.Errorf("a caller outside of the group: %+v", a)
	}
	if a := as[answer](m, user(knownUID, "sigil-clients"), "caller", "/run/sigild/admin.sock"); !strings.Contains(a.Error, "permission denied") {
		t.Errorf("an application at the operators' socket: %+v", a)
	}
	m.run("journalctl", "--sync")
	line := m.run("journalctl", "--no-pager", "-o", "json", "SIGILD_REASON=CALLER_NOT_ALLOWED", fmt.Sprintf("SIGILD_UID=%d", unknownUID))
	for _, want := range []string{`"SYSLOG_IDENTIFIER":"sigild"`, `"_SYSTEMD_UNIT":"sigild.service"`, `"SIGILD_METHOD":"/sigil.v1.StatusService/GetStatus"`, `"SIGILD_UNIT":"bot-of-users.service"`} {
		if !strings.Contains(line, want) {
			t.Errorf("the journal lacks %s:\n%s", want, line)
		}
	}
}

// reloadPolicies: the appliance's policy files are read anew at SIGHUP, from inside the
// sandbox and without a restart; bad ones alarm and change nothing.
func (m *machine) reloadPolicies(t *testing.T) {
	m.shell(`
install -d -m 0755 /etc/sigild/policies.d
sed -i 's|^policy_dir: .*|policy_dir: /etc/sigild/policies.d|' /etc/sigild/sigild.yaml
systemctl restart sigild.service
pid=$(systemctl show -P MainPID sigild.service)
says() {
	for _ in $(seq 100); do
		sigilctl status | grep -q "$1" && return 0
		sleep 0.1
	done
	sigilctl status >&2
	return 1
}
says '^policy files *0'
echo '{"policies":[{"id":"no-contracts","effect":"EFFECT_DENY","condition":"eth.tx.data != '"'0x'"'"}]}' >/etc/sigild/policies.d/house.json
systemctl kill --kill-whom=main -s HUP sigild.service
says '^policy files *1'
echo '{"policies":[{"id":"all","effect":"EFFECT_ALLOW","condition":"true"}]}' >/etc/sigild/policies.d/more.json
systemctl kill --kill-whom=main -s HUP sigild.service
says 'ALARM.*may deny or limit, never allow'
rm /etc/sigild/policies.d/more.json
systemctl kill --kill-whom=main -s HUP sigild.service
for _ in $(seq 100); do sigilctl status | grep -q ALARM || break; sleep 0.1; done
no sh -c 'sigilctl status | grep -q ALARM'
says '^policy files *1'
test "$(systemctl show -P MainPID sigild.service)" = "$pid"
`)
}

func (m *machine) restartUnderLoad(t *testing.T) {
	stop := m.hammering(appSocket)
	for range 3 {
		m.run("systemctl", "restart", "sigild.service")
	}
	m.mustBeWhole(t, "3 restarts", stop())
}

func (m *machine) mustBeWhole(t *testing.T, during string, counted tally) {
	t.Helper()
	t.Logf("during %s: %d calls, %d failed, the longest took %v", during, counted.OK+counted.Failed, counted.Failed, counted.Longest.Round(time.Millisecond))
	if counted.Failed > 0 || counted.OK < 10 {
		t.Errorf("%d of %d calls failed during %s: %q", counted.Failed, counted.OK+counted.Failed, during, counted.Errors)
	}
}

// tamper: a credential that was changed keeps the service from starting.
func (m *machine) tamper(t *testing.T) {
	m.shell(`
systemctl stop sigild.socket sigild-admin.socket sigild.service
cd /etc/credstore.encrypted
cp sigild.hsm-pin good
base64 -d good | { head -c 60; printf X; } >head
{ cat head; base64 -d good | tail -c +62; } | base64 >sigild.hsm-pin
no systemctl start sigild.service
test "$(systemctl show -P ExecMainStatus sigild.service)" = 243
systemctl stop sigild.socket sigild-admin.socket sigild.service
rm sigild.hsm-pin
no systemctl start sigild.service
systemctl stop sigild.socket sigild-admin.socket sigild.service
mv good sigild.hsm-pin
systemctl start sigild.service
`)
}

// losePin: without its pin the daemon doesn't start. Callers are refused at once,
// systemd doesn't go round in circles, and a start by hand mends it.
func (m *machine) losePin(t *testing.T) {
	m.shell(`systemctl stop sigild.service; mv /etc/sigild/store.pin /root`)
	if a := as[answer](m, nil, "caller", appSocket); a.Error == "" {
		t.Errorf("without the pin: %+v", a)
	}
	m.shell(`
test "$(systemctl show -P Result sigild.socket)" = trigger-limit-hit
mv /root/store.pin /etc/sigild
systemctl start sigild.service
`)
	if a := as[answer](m, nil, "caller", appSocket); a.Error != "" || a.Sealed {
		t.Errorf("with the pin again: %+v", a)
	}
}

func (m *machine) upgradeUnderLoad(t *testing.T) {
	before := m.run("systemctl", "show", "-P", "MainPID", "sigild.service")
	stop := m.hammering(appSocket)
	m.run("dpkg", "-i", "/share/newer.deb")
	m.mustBeWhole(t, "an upgrade", stop())
	if v := m.run("dpkg-query", "-W", "-f", "${Version}", "sigild"); v != "0.1.1-1" {
		t.Errorf("the version is %q", v)
	}
	if after := m.run("systemctl", "show", "-P", "MainPID", "sigild.service"); after == before {
		t.Error("the old daemon still runs")
	}
}

// kill measures; the figure is the machine's and no test.
func (m *machine) kill(t *testing.T) {
	var all []time.Duration
	for range 3 {
		pid := strings.TrimSpace(m.run("systemctl", "show", "-P", "MainPID", "sigild.service"))
		all = append(all, as[time.Duration](m, nil, "killer", appSocket, pid, "SIGKILL").Round(time.Millisecond))
	}
	t.Logf("kill -9 to the next good call: %v", all)
}

// hang: a daemon that doesn't answer the watchdog is replaced.
func (m *machine) hang(t *testing.T) {
	m.shell(`
mkdir -p /run/systemd/system/sigild.service.d
printf '[Service]\nWatchdogSec=1\n' >/run/systemd/system/sigild.service.d/watchdog.conf
systemctl daemon-reload
systemctl restart sigild.service
`)
	pid := strings.TrimSpace(m.run("systemctl", "show", "-P", "MainPID", "sigild.service"))
	t.Logf("hung with WatchdogSec=1 to the next good call: %v", as[time.Duration](m, nil, "killer", appSocket, pid, "SIGSTOP").Round(time.Millisecond))
	if now := strings.TrimSpace(m.run("systemctl", "show", "-P", "MainPID", "sigild.service")); now == pid {
		t.Error("the daemon that hung still runs")
	}
	if out := m.run("journalctl", "--no-pager", "-u", "sigild.service"); !strings.Contains(out, "Watchdog timeout") {
		t.Error("the journal doesn't say that the watchdog did it")
	}
	m.shell("rm -r /run/systemd/system/sigild.service.d; systemctl daemon-reload")
}

// purge leaves the keys; installed again, the same appliance is back.
func (m *machine) purge(t *testing.T, id string) {
	m.shell(`
dpkg --remove sigild
no systemctl is-active --quiet sigild.service
no systemctl is-active --quiet sigild.socket
test ! -e /run/sigild/sigild.sock
test -e /etc/sigild/sigild.yaml
cp /etc/sigild/sigild.yaml /root
dpkg --purge sigild
test ! -e /etc/sigild/sigild.yaml
test -s /var/lib/sigild/vault.db
test -s /etc/sigild/store.pin
test -z "$(find /etc/systemd -name 'sigild*' ! -name 'sigild.service.d')"
cp /root/sigild.yaml /etc/sigild
dpkg --force-confold -i /share/newer.deb
systemctl start sigild.service
`)
	if a := as[answer](m, nil, "caller", appSocket); a.Error != "" || a.Sealed || a.ID != id {
		t.Errorf("after purge and install: %+v, want appliance %s", a, id)
	}
}
