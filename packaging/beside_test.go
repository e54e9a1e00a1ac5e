package packaging

import (
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"filippo.io/age"

	"github.com/sigild/sigild/chains/solana"
	"github.com/sigild/sigild/internal/testvendor"
	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/mpc/mpctest"
)

// neighbourhood is a machine with the daemon and all units beside it, set up by the tool
// as docs/operating.md says.
type neighbourhood struct {
	*machine
	t         *testing.T
	recipient string
	// What was made, by id.
	organization, bot, dana, webhook string
	public                           *rsa.PublicKey
}

const (
	webhookSecret = "whsec_of_the_neighbourhood"
	cluster       = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"
	receiveURL    = "https://localhost:8443/webhooks/"
)

// TestUnitsBesideTheDaemon is every other unit of the package under a real systemd: each
// does its job once, as a user of its own, in a sandbox of its own.
func TestUnitsBesideTheDaemon(t *testing.T) {
	n := &neighbourhood{t: t, machine: startMachine(t, shared(t, map[string]string{"sigild.deb": built(t).Deb}))}
	began := time.Now()
	step := func(what string) { t.Logf("%6.2f s  %s", time.Since(began).Seconds(), what) }
	n.install(t)
	n.configure()
	step("installed and configured")
	n.startAll()
	step("started")
	n.lookAtMetrics()
	n.looksOwnUsers()
	n.lookAtSandboxes()
	step("sandboxes probed")
	n.settle()
	n.overTheLink()
	step("a device made a key over the link")
	n.overHTTPS()
	step("a delegation was delivered over HTTPS")
	n.byTheVendor()
	step("the vendor's program has signed, and hung")
}

// ctl runs the tool as root and returns what it printed.
func (n *neighbourhood) ctl(args ...string) string {
	n.t.Helper()
	return n.run(append([]string{"env", "-C", "/root", "sigilctl"}, args...)...)
}

// word is what follows a name at the start of a line.
func (n *neighbourhood) word(out, name string) string {
	n.t.Helper()
	m := regexp.MustCompile(`(?m)^` + name + `\s+([^\s,]+)`).FindStringSubmatch(out)
	if m == nil {
		n.t.Fatalf("no %s in\n%s", name, out)
	}
	return m[1]
}

// put writes a file that the machine sees in /share.
func (n *neighbourhood) put(name string, b []byte) {
	n.t.Helper()
	if err := os.WriteFile(filepath.Join(n.share, name), b, 0o644); err != nil {
		n.t.Fatal(err)
	}
}

// configure writes the configurations of all units, from their examples.
func (n *neighbourhood) configure() {
	n.t.Helper()
	identity, err := age.GenerateX25519Identity()
	if err != nil {
		n.t.Fatal(err)
	}
	certificate, key, err := testvendor.Localhost()
	if err != nil {
		n.t.Fatal(err)
	}
	n.recipient = identity.Recipient().String()
	n.put("age.key", []byte(identity.String()+"\n"))
	n.put("tls.pem", certificate)
	n.put("tls.key", key)
	n.put("secret", []byte(webhookSecret+"\n"))
	n.put("rules.json", []byte(`{"policies":[{"id":"p","name":"small","effect":"EFFECT_ALLOW","condition":"solana.tx.transfers.all(t, t.amount <= 500)"}]}`))
	n.shell(fmt.Sprintf(`
cd /usr/share/doc/sigild/examples
grep -q localhost /etc/hosts || echo 127.0.0.1 localhost >>/etc/hosts
sed -i -e "/^  courier:/,/gids/s|uids: .*|uids: [$(id -u sigild-receive), $(id -u sigild-deliver)]|" \
	-e '/^peer:/,/semi_trusted:/s|path: ""|path: /run/sigild/peer.sock|' \
	-e '/^metrics:/,/textfile:/s|path: ""|path: /run/sigild/metrics.sock|' \
	-e '/^vendor_helper:/,/timeout:/s|socket: ""|socket: /run/sigild-helper/helper.sock|' \
	-e '/^vendor_helper:/,/timeout:/s|timeout: .*|timeout: 1m|' -e '/^signing:/,/timeout:/s|timeout: .*|timeout: 1m|' /etc/sigild/sigild.yaml
sed -e 's|0.0.0.0:7443|127.0.0.1:7443|' link.yaml >/etc/sigild/link.yaml
sed -e 's|\[::\]:8443|127.0.0.1:8443|' receive.yaml >/etc/sigild/receive.yaml
install -m 0644 /share/tls.pem /etc/sigild/receive.pem
install -m 0400 -o sigild-receive /share/tls.key /etc/sigild/receive.key
sed -e 's|roots: ""|roots: /etc/sigild/receive.pem|' deliver.yaml >/etc/sigild/deliver.yaml
sed -e 's|program: .*|program: /share/roles|' -e "s|sha256: .*|sha256: $(sha256sum /share/roles | cut -d ' ' -f 1)|" \
	-e 's|args: .*|args: [/share/vendor.json]|' -e 's|env: .*|env: {%s: vendor}|' \
	-e 's|timeout: .*|timeout: 1m|' -e "s|callers: .*|callers: [$(id -u sigild)]|" helper.yaml >/etc/sigild/helper.yaml
sed -e 's|SocketGroup=.*|SocketGroup=nogroup|' sigild-metrics.socket >/etc/systemd/system/sigild-metrics.socket
`, roleVariable))
}

// startAll starts what the administrator enables.
func (n *neighbourhood) startAll() {
	n.t.Helper()
	n.shell(`
for u in sigild-peer.socket sigild-link.service sigild-receive.service sigild-deliver.service sigild-helper.socket; do
	no systemctl is-enabled --quiet $u
done
systemctl daemon-reload
systemctl enable --quiet --now sigild-peer.socket sigild-metrics.socket sigild-helper.socket
systemctl start sigild.service
systemctl enable --quiet --now sigild-link.service sigild-receive.service sigild-deliver.service
systemctl is-active sigild-link.service sigild-receive.service sigild-deliver.service sigild-helper.socket
test "$(stat -c %a:%U:%G /run/sigild/peer.sock)" = 660:sigild:sigild-link
test "$(stat -c %a:%U:%G /run/sigild/metrics.sock)" = 660:sigild:nogroup
test "$(stat -c %a:%U /run/sigild-helper/helper.sock)" = 600:sigild
test "$(stat -c %a:%U:%G /run/sigild-link)" = 750:sigild-link:sigild-link
test "$(stat -c %a:%U:%G /run/sigild-link/treasury.sock)" = 660:sigild-link:sigild-link
`)
	for _, unit := range []string{"sigild-peer.socket", "sigild-link.service", "sigild-receive.service", "sigild-deliver.service", "sigild-helper.socket", "sigild-helper@.service"} {
		if out, _ := n.try("systemd-analyze", "verify", "/usr/lib/systemd/system/"+unit); strings.Contains(out, "sigild") {
			n.t.Errorf("verify %s says:\n%s", unit, out)
		}
	}
}

// lookAtMetrics scrapes the socket as a member of its group, and as nobody's member.
func (n *neighbourhood) lookAtMetrics() {
	n.t.Helper()
	got := as[fetched](n.machine, []string{"setpriv", "--reuid=4321", "--regid=nogroup", "--clear-groups"}, "scraper", "/run/sigild/metrics.sock")
	for _, want := range []string{"\nsigild_sealed 0\n", "\nsigild_connections{socket=\"sigild.sock\"} ", "# TYPE sigild_calls_total counter\n"} {
		if got.Status != 200 || !strings.Contains(got.Body, want) {
			n.t.Errorf("the metrics lack %q: %d\n%s", want, got.Status, got.Body)
		}
	}
	if out, err := n.try("setpriv", "--reuid=4321", "--regid=sigild-link", "--clear-groups", "env", roleVariable+"=scraper", "/share/roles", "/run/sigild/metrics.sock"); err == nil || !strings.Contains(out, "permission denied") {
		n.t.Errorf("somebody outside of the group: %v\n%s", err, out)
	}
}

// looksOwnUsers: each process has a user of its own, no capability and a filter. The
// daemon is alone in its network namespace, with a loopback that is down.
func (n *neighbourhood) looksOwnUsers() {
	n.t.Helper()
	for _, unit := range []string{"sigild-link", "sigild-receive", "sigild-deliver"} {
		status := n.shell(fmt.Sprintf(`
pid=$(systemctl show -P MainPID %[1]s.service)
test "$(stat -c %%U /proc/$pid)" = %[1]s
no test /proc/$pid/ns/user -ef /proc/1/ns/user
cat /proc/$pid/status`, unit))
		for _, want := range []string{"CapBnd:\t0000000000000000", "CapEff:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"} {
			if !strings.Contains(status, want) {
				n.t.Errorf("%s lacks %q:\n%s", unit, want, status)
			}
		}
	}
	n.shell(`
daemon=$(systemctl show -P MainPID sigild.service)
link=$(systemctl show -P MainPID sigild-link.service)
no test /proc/$daemon/ns/net -ef /proc/1/ns/net
test /proc/$link/ns/net -ef /proc/1/ns/net
test "$(grep -c : /proc/$daemon/net/dev)" = 1
no grep -qv '^ *sl' /proc/$daemon/net/tcp
test "$(wc -l </proc/$daemon/net/route)" = 1
`)
}

// besideJail is what the sandboxes of the units with the network have in common.
var besideJail = map[string]string{
	"unix socket": "ok", "inet socket": "ok", "inet6 socket": "ok", "netlink socket": "EAFNOSUPPORT", "packet socket": "EAFNOSUPPORT", "vsock socket": "EAFNOSUPPORT",
	"write the state": "EACCES", "read the state": "EACCES", "write /etc": "EROFS", "write /etc/sigild": "EROFS", "write /usr/bin": "EROFS", "write /var/lib": "EROFS",
	"write /run": "EROFS", "write /tmp of its own": "ok",
	"read /etc/shadow": "EACCES", "read /root": "EACCES", "read the host's /tmp": "ENOENT", "read /proc/1": "ENOENT", "read /proc/self": "ok",
	"open /dev/mem": "ENOENT", "open /dev/kmsg": "ENOENT", "open /dev/fuse": "ENOENT", "open /dev/net/tun": "ENOENT", "open /dev/urandom": "ok",
	"a user namespace": "EPERM", "a mount namespace": "EPERM", "mount": "EPERM", "ptrace": "EPERM", "bpf": "EPERM", "perf_event_open": "EPERM", "keyctl": "EPERM", "io_uring_setup": "EPERM",
	"kexec_load": "EPERM", "setuid 0": "EPERM", "set the clock": "EPERM", "set the host name": "EPERM", "real-time scheduling": "EPERM", "personality": "EPERM",
	"CapEff": "0000000000000000", "CapPrm": "0000000000000000", "CapBnd": "0000000000000000", "CapAmb": "0000000000000000",
	"NoNewPrivs": "1", "Seccomp": "2", "core limit": "0",
	"$GOLOG_FILE": "", "$IPFS_LOGGING": "", "$GODEBUG": "", "$GOTRACEBACK": "single",
}

// besideNoPrograms holds where nothing but sigild is run.
var besideNoPrograms = map[string]string{
	"run /bin/sh": "EACCES", "run /usr/bin/id": "EACCES", "read /proc/meminfo": "ENOENT",
	"run a program of ours in /tmp": "EACCES", "run a program of ours in /var/tmp": "EACCES", "run a program of ours in /dev/shm": "EACCES",
}

func (n *neighbourhood) lookAtSandboxes() {
	n.t.Helper()
	for unit, more := range map[string]map[string]string{
		"sigild-link.service": besideNoPrograms, "sigild-receive.service": besideNoPrograms, "sigild-deliver.service": besideNoPrograms,
		// It runs a program that we don't know, and sees none of sigild's doors.
		"sigild-helper@.service": {"run /usr/bin/id": "ok", "write /run/sigild": "EACCES"},
	} {
		found := n.imprison(n.t, unit)
		for _, table := range []map[string]string{besideJail, more} {
			for what, want := range table {
				if got, asked := found[what]; got != want || !asked {
					n.t.Errorf("%s: %s: %q, want %q", unit, what, got, want)
				}
			}
		}
	}
}

// settle makes an organization with a delegated user, an end user and a webhook.
func (n *neighbourhood) settle() {
	n.t.Helper()
	n.ctl("credential", "create", "--purpose", "organization-root", "--name", "rhea", "--out", "rhea")
	n.ctl("credential", "create", "--purpose", "user", "--name", "dana", "--out", "dana")
	n.organization = n.word(n.ctl("organization", "create", "--name", "Acme", "--root", "rhea.json", "--key", "alice.key"), "organization")
	n.bot = n.word(n.ctl("user", "create", "--organization", n.organization, "--name", "bot", "--delegated", "--key", "rhea.key"), "user")
	signature := strings.TrimSpace(n.ctl("credential", "sign-recipient", "--key", "dana.key", "--recipient", n.recipient))
	n.dana = n.word(n.ctl("user", "create", "--organization", n.organization, "--name", "dana", "--credential", "dana.json",
		"--recipient", n.recipient, "--recipient-signature", signature, "--key", "rhea.key"), "user")
	out := n.ctl("webhook", "register", "--organization", n.organization, "--environment", "env-1", "--secret-file", "/share/secret", "--key", "rhea.key")
	n.webhook = n.word(out, "webhook")
	n.put("hook.pem", []byte(out[strings.Index(out, "-----BEGIN"):]))
	block, _ := pem.Decode([]byte(out[strings.Index(out, "-----BEGIN"):]))
	public, err := x509.ParsePKIXPublicKey(block.Bytes)
	if err != nil {
		n.t.Fatal(err)
	}
	n.public = public.(*rsa.PublicKey)
}

// overTheLink: a device on TCP makes a key together with the daemon, which has no
// network: a whole session through the relay.
func (n *neighbourhood) overTheLink() {
	n.t.Helper()
	file := []string{"--file", "phone.age", "--identity", "/share/age.key"}
	device := func(verb string, args ...string) string {
		n.t.Helper()
		return n.ctl(append(append([]string{"device", verb}, file...), args...)...)
	}
	device("init")
	id := n.word(device("register", "--organization", n.organization, "--user", n.dana, "--name", "phone", "--address", "tcp:127.0.0.1:7443", "--key", "dana.key"), "device")
	made := n.ctl("device", "wallet", "--organization", n.organization, "--owner", n.dana, "--device", id, "--chain", cluster, "--name", "own", "--key", "rhea.key")
	device("join", "--ceremony", n.word(made, "ceremony"), "--yes")
	if out := device("show"); !strings.Contains(out, "live of wallet "+n.word(made, "wallet")) {
		n.t.Errorf("the device holds no share:\n%s", out)
	}
	if log := n.run("journalctl", "--no-pager", "-o", "cat", "-u", "sigild-link.service"); !strings.Contains(log, "relayed") {
		n.t.Errorf("the link did not relay it:\n%s", log)
	}
}

// overHTTPS: a delegation goes from the outbox by the deliverer to the receiver, and is
// stored by the daemon, here the same one.
func (n *neighbourhood) overHTTPS() {
	n.t.Helper()
	out := n.ctl("endpoint", "register", "--organization", n.organization, "--name", "ourselves", "--url", receiveURL+n.webhook, "--environment", "env-1",
		"--secret-file", "/share/secret", "--public-key", "/share/hook.pem", "--key", "rhea.key")
	endpoint, key := n.word(out, "endpoint"), n.word(out, "key")
	n.ctl("endpoint", "ping", endpoint, "--organization", n.organization, "--key", "rhea.key")
	n.until("the ping has arrived", "endpoint", "key", endpoint, "--activate", key, "--organization", n.organization, "--key", "rhea.key")
	wallet := n.word(n.ctl("wallet", "create", "--organization", n.organization, "--owner", n.dana, "--chain", cluster, "--name", "sol", "--wait", "--key", "rhea.key"), "wallet")
	n.ctl("wallet", "share", "--organization", n.organization, "--wallet", wallet, "--out", "dana.share", "--key", "dana.key")
	made := n.word(n.ctl("delegation", "create", "--organization", n.organization, "--wallet", wallet, "--user", n.bot, "--endpoint", endpoint, "--rules", "/share/rules.json", "--key", "dana.key"), "delegation")
	n.until("the delegation is delivered", "sh", "-c", "sigilctl delivery list --organization "+n.organization+" --key rhea.key | grep -q pending")
	if log := n.run("journalctl", "--no-pager", "-o", "cat", "-u", "sigild-deliver.service"); !strings.Contains(log, "event") {
		n.t.Errorf("the deliverer did not post %s:\n%s", made, log)
	}
}

// until runs the tool, or a shell, until it succeeds.
func (n *neighbourhood) until(what string, args ...string) {
	n.t.Helper()
	if args[0] != "sh" {
		args = append([]string{"sigilctl"}, args...)
	}
	var out string
	var err error
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(100 * time.Millisecond) {
		if out, err = n.try(append([]string{"env", "-C", "/root"}, args...)...); err == nil {
			return
		}
	}
	journal, _ := n.try("journalctl", "--no-pager", "-n", "60", "-o", "short-precise")
	n.t.Fatalf("until %s: %v\n%s\njournal:\n%s", what, err, out, journal)
}

// byTheVendor: the vendor posts a share, and its own program, pinned by its hash, signs
// with it in a unit that leaves nothing behind.
func (n *neighbourhood) byTheVendor() {
	n.t.Helper()
	set := mpctest.Ed25519DelegateSet(n.t)
	service := testvendor.Service{Set: set.ShareSet, Server: set.Shares(n.t, mpc.Server)[0], APIKey: "dyn_of_the_vendor", Token: "dev_token"}
	behave := func(mood testvendor.Mood) {
		n.t.Helper()
		service.Mood = mood
		if err := service.Save(filepath.Join(n.share, "vendor.json")); err != nil {
			n.t.Fatal(err)
		}
	}
	n.put("token", []byte("dev_token\n"))
	n.ctl("webhook", "token", "--organization", n.organization, "--webhook", n.webhook, "--file", "/share/token", "--key", "rhea.key")
	address := solana.Address([32]byte(set.PublicKey))
	n.deliver(address, set.Shares(n.t, mpc.Delegate)[0], service.APIKey)
	var id string
	for line := range strings.Lines(n.ctl("delivery", "list", "--organization", n.organization, "--key", "rhea.key")) {
		if strings.Contains(line, address) {
			id = strings.Fields(line)[0]
		}
	}
	out := n.ctl("delivery", "bind", id, "--organization", n.organization, "--chain", cluster, "--address", address, "--name", "theirs", "--user", n.bot,
		"--recipient", n.recipient, "--rules", "/share/rules.json", "--key", "rhea.key")
	wallet := n.word(out, "wallet")
	n.ctl("delegation", "api-key", n.word(out, "delegation"), "--organization", n.organization, "--out", "bot.age", "--key", "rhea.key")

	message := payment([32]byte(set.PublicKey), 5)
	pay := func() (got signed) {
		out, err := n.try("env", roleVariable+"=signer", "/share/roles", "/root/bot.age", "/share/age.key", wallet, hex.EncodeToString(message))
		if err := errors.Join(err, json.Unmarshal([]byte(out), &got)); err != nil {
			got.Error = fmt.Sprintf("%v: %s", err, out)
		}
		return got
	}
	behave(testvendor.Leaking)
	got := pay()
	if sig, err := hex.DecodeString(got.Signature); err != nil || !ed25519.Verify(set.PublicKey, message, sig) {
		n.t.Fatalf("the vendor's program: %+v, %v", got, err)
	}
	n.nothingIsLeft("a signature")

	// A program that forks, hides, ignores SIGTERM and hangs, at the deadline.
	n.shell(`sed -i 's|timeout: .*|timeout: 2s|' /etc/sigild/helper.yaml`)
	behave(testvendor.Hanging)
	if got := pay(); got.Reason != "OUTCOME_UNKNOWN" {
		n.t.Errorf("a program that hangs: %+v", got)
	}
	n.nothingIsLeft("the deadline")

	// The same, where our own process in the unit is dead: systemd ends the control group.
	n.shell(`
sed -i 's|timeout: .*|timeout: 1m|' /etc/sigild/helper.yaml
mkdir -p /run/systemd/system/sigild-helper@.service.d
printf '[Service]\nRuntimeMaxSec=3\nTimeoutStopSec=1\n' >/run/systemd/system/sigild-helper@.service.d/short.conf
systemctl daemon-reload
`)
	for _, signal := range []string{"SIGKILL", "SIGSTOP"} {
		asked := make(chan signed, 1)
		go func() { asked <- pay() }()
		n.until("the program hangs", "sh", "-c", "grep -lz '^linge[r]$' /proc/[0-9]*/cmdline")
		n.shell(`
unit=$(systemctl list-units --plain --no-legend 'sigild-helper@*.service' | cut -d ' ' -f 1)
systemctl kill --kill-whom=main --signal=` + signal + ` "$unit"
`)
		n.nothingIsLeft("our own process got " + signal)
		if got := <-asked; got.Reason != "OUTCOME_UNKNOWN" {
			n.t.Errorf("after %s: %+v", signal, got)
		}
	}
	n.shell(`rm -r /run/systemd/system/sigild-helper@.service.d; systemctl daemon-reload`)
	behave("")
	if got := pay(); got.Signature == "" {
		n.t.Errorf("afterwards: %+v", got)
	}
	n.run("journalctl", "--sync")
	journal := n.run("journalctl", "--no-pager", "-o", "cat")
	for _, secret := range []string{service.APIKey, service.Token, "secretShare"} {
		if strings.Contains(journal, secret) {
			n.t.Errorf("the system's journal holds %q, which the program wrote to standard error", secret)
		}
	}
}

// deliver has the vendor post a share over TLS, by the receiver.
func (n *neighbourhood) deliver(address string, share []byte, apiKey string) {
	n.t.Helper()
	plain, err := testvendor.Share(share)
	if err != nil {
		n.t.Fatal(err)
	}
	var envelopes [2]map[string]any
	for i, b := range [][]byte{plain, []byte(apiKey)} {
		if envelopes[i], err = testvendor.Envelope(n.public, b); err != nil {
			n.t.Fatal(err)
		}
	}
	body, err := testvendor.Event("wallet.delegation.created", "env-1", 1, map[string]any{
		"walletId": "wallet-1", "chain": "SVM", "userId": "user-1", "publicKey": address, "encryptedDelegatedShare": envelopes[0], "encryptedWalletApiKey": envelopes[1],
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.put("body", body)
	got := as[fetched](n.machine, nil, "poster", receiveURL+n.webhook, "/share/body", testvendor.MAC(webhookSecret, body), "/share/tls.pem")
	if got.Status != 200 || got.TLS != tls.VersionTLS13 {
		n.t.Fatalf("the receiver answers %+v", got)
	}
}

// nothingIsLeft: no process of the unit's user, no control group of its instances.
func (n *neighbourhood) nothingIsLeft(after string) {
	n.t.Helper()
	n.until("nothing is left after "+after, "sh", "-ec", `
test -z "$(systemctl list-units --all --plain --no-legend 'sigild-helper@*.service')"
test -z "$(find /sys/fs/cgroup -path '*sigild*helper@*' -name cgroup.procs)"
test -z "$(grep -lz '^linge[r]$' /proc/[0-9]*/cmdline)"
test -z "$(stat -c %U /proc/[0-9]* 2>/dev/null | grep -x sigild-helper)"`)
}

// payment is a Solana message of one transfer.
func payment(from [32]byte, lamports byte) []byte {
	to, blockhash, system := [32]byte{7, 7, 1}, [32]byte{9, 9, 2}, [32]byte{}
	return slices.Concat([]byte{0x80, 1, 0, 1, 3}, from[:], to[:], system[:], blockhash[:], []byte{1, 2, 2, 0, 1, 12, 2, 0, 0, 0, lamports, 0, 0, 0, 0, 0, 0, 0, 0})
}
