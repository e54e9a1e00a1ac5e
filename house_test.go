// Package sigild_test keeps the house in order: it reads `go list` and the
// files of the repository and insists on what design and style agreed. The
// tables come first; house_check_test.go has the checks and sees each of them fail.
package sigild_test

import "testing"

const modulePath = "github.com/sigild/sigild"

// order says which way imports go: a room, and the rooms right below it. A room
// may import these and all that lies below them, never upwards or sideways. A
// package belongs to the longest row its path begins with; packages of one room
// may import each other. A package without a row fails: give it a place.
const order = `
	cmd/sigild         -> cmd/config server tpm systemd metrics courier
	cmd/sigilctl       -> cmd/config client delegation tpm airgap device stamping/dfns
	cmd/config         -> hsm tpm systemd credential link runner
	demo               -> client journal mpc chains/evm chains/solana internal/testhsm internal/testtpm

	server             -> delegation delivery stamping api systemd link metrics
	delegation         -> signing bundle clock outbox
	outbox             -> journal
	delivery           -> signing
	stamping           -> signing stamping/turnkey stamping/dfns
	stamping/turnkey   -> stamping/body
	stamping/dfns      -> stamping/body
	stamping/body      -> chains
	signing            -> policy mpc chains/signable journal refusal credential
	journal            -> vault refusal
	clock              -> vault
	vault              -> seal
	policy             -> chains/evm chains/solana
	device             -> link chains/signable
	link               -> mpc api
	mpc                -> chains internal/secmem
	chains/signable     -> chains/evm chains/solana
	chains/evm         -> chains
	chains/solana      -> chains
	chains             ->

	hsm                -> seal
	tpm                -> seal
	seal               -> internal/secmem

	bundle             -> credential
	airgap             -> chains/signable
	client             -> api credential
	courier            -> client
	api                ->
	credential         ->
	refusal            ->
	systemd            ->
	runner             ->
	metrics            ->

	oracles            -> chains/evm chains/solana mpc airgap
	examples           -> client
	internal/secmem    ->
	internal/testcost  ->
	internal/testdisk  ->
	internal/testhsm   -> internal/secmem
	internal/testtpm   -> internal/secmem
	internal/testvendor -> mpc
	internal/testrun   ->
	packaging          ->
`

// testsAlso may be imported, with what lies below, by the tests of every room:
// real devices, the real client, and for signing the real authority it asks, in
// place of doubles.
const testsAlso = "hsm tpm client delegation delivery internal/testcost internal/testdisk internal/testhsm internal/testtpm internal/testvendor"

// confined keeps what can hurt us in the rooms that answer for it.
var confined = []confinement{
	{what: "github.com/bnb-chain/tss-lib", rooms: "mpc/engines/gg18",
		why: "its panics, zeroed inputs and parties without a session are contained there; tests too"},
	{what: "github.com/gagliardetto/solana-go", rooms: "chains/solana", testsFree: true,
		why: "decoding is ours; the library is beneath it or beside it in a test"},
	{what: "github.com/ethereum/go-ethereum", rooms: "chains/evm demo", testsFree: true,
		why: "decoding is ours; LGPL-3.0, so it stays where NOTICE says; demo verifies with it"},
	{what: "github.com/miekg/pkcs11", rooms: "hsm internal/testhsm",
		why: "foreign code is loaded by the worker only"},
	{what: "google.golang.org/grpc", rooms: "api server client link device courier cmd demo",
		why: "the rooms that decide know no transport; server/errors.go knows all codes"},
	{what: "modernc.org/sqlite", rooms: "vault journal",
		why: "one database, one writer; journal only for the off-line verifier"},
	{what: "os/exec", rooms: "hsm runner demo packaging internal/testhsm internal/testtpm internal/testrun", testsFree: true,
		why: "the daemon starts no foreign program; hsm starts our own worker, runner a vendor's program in a unit of its own"},
	{what: "math/rand", rooms: "hsm", testsFree: true,
		why: "randomness comes from crypto/rand or from the device; hsm spreads its retries with it"},
	{what: "unsafe", rooms: "api hsm internal/secmem", testsFree: true,
		why: "mapped memory, a PIN that must not become a string of its own, generated protobuf"},
}

// badNames say nothing about what is inside.
var badNames = []string{"util", "utils", "common", "core", "types", "pkg", "helper", "helpers", "misc", "shared", "base"}

// maxLines of one hand-written file.
const maxLines = 600

// foreign must not be in any file of ours: paths of the machine it was written
// on, hosts a lock file drags in. Each is cut in two so that this file passes.
var foreign = []string{
	"/work/" + "main", "/work/" + "shared", "/work/" + "steering", "/tmp/" + "bash_jobs", "/root/" + "go/", "/root/" + ".cache",
	"proxy." + "golang.org", "registry." + "npmjs.org", "registry." + "yarnpkg.com", "deb." + "debian.org", "files." + "pythonhosted.org",
}

// skipDirs hold nothing we wrote.
var skipDirs = []string{".git", "bin", "dist", "node_modules"}

func TestHouseImportsGoOneWay(t *testing.T)            { report(t, checkOrder(order, testsAlso, load(t))) }
func TestHouseKeepsLibrariesInTheirRooms(t *testing.T) { report(t, checkConfined(confined, load(t))) }
func TestHouseNamesItsPackages(t *testing.T)           { report(t, checkNames(badNames, load(t))) }
func TestHouseDescribesItsPackages(t *testing.T)       { report(t, checkDocs(load(t))) }
func TestHouseKeepsFilesShort(t *testing.T)            { report(t, checkLength(maxLines, files(t))) }
func TestHouseHoldsNoForeignStrings(t *testing.T)      { report(t, checkForeign(foreign, files(t))) }
func TestHouseTestsNeverSkip(t *testing.T)             { report(t, checkSkips(files(t))) }

// NOTICE names every module that is linked into what we ship, and no other.
func TestNoticeNamesWhatLinks(t *testing.T) {
	report(t, checkNotice(read(t, "NOTICE"), linked(t, "./cmd/...")))
}
