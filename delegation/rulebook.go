package delegation

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/sigild/sigild/chains/evm"
	"github.com/sigild/sigild/chains/signable"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
)

// What judges a delegation's request is joined of layers, each compiled once:
//
//   - the appliance's policy files: they deny and limit (policyfiles.go);
//   - the organization's rules: its DENY policies and limits hold for every
//     request, those of delegations included; its ALLOW policies count for a
//     delegation only if the owner said so when making it. So nobody but the
//     owner ever widens what a delegated user was given;
//   - the delegation's own policies and limits;
//   - its open orders, which the delegated user made within the owner's templates (orders.go).
//
// The layers are told apart by the ids of their rules: "appliance/…", "organization/…" and what
// was drawn for the delegation's own ("pol_…", "lim_…", "ord_…").

const organizationPrefix = "organization/"

// rulebook is the documents of an organization. It is immutable.
type rulebook struct {
	version   uint64
	documents []*document // ordered by kind and name
	// hash names all documents.
	hash [32]byte
	// laws reads and compiles them, once, when they are set or first asked for after a
	// start. Documents that this build can't read are the refusal of their own
	// organization's requests, and of nobody else's.
	laws func() (*laws, error)
	// whole and narrow are the last answers of alone; swapped, never modified.
	whole, narrow atomic.Pointer[ruling]
}

// laws are what documents say, read and compiled.
type laws struct {
	// rules are all policies and limits, narrowing those that can't allow.
	rules, narrowing *policy.Set
	// stamped are the policies and limits that judge stamped requests: all but ALLOW
	// policies without a consensus, which would allow whoever the organization has.
	stamped *policy.Set
	// interfaces are what payloads are read with.
	interfaces signable.Interfaces
}

// ruling is what judges a request without a delegation.
type ruling struct {
	files      *PolicyFiles
	rules      *policy.Set
	interfaces signable.Interfaces
	hash       [32]byte
}

// alone joins the appliance's files and the organization's rules, of which ALLOW
// policies count only if allows says so.
func (r *rulebook) alone(files *PolicyFiles, allows bool) (*ruling, error) {
	kept := &r.narrow
	if allows {
		kept = &r.whole
	}
	if j := kept.Load(); j != nil && j.files == files {
		return j, nil
	}
	l, err := r.laws()
	if err != nil {
		return nil, err
	}
	above := l.narrowing
	if allows {
		above = l.stamped
	}
	rules, err := policy.Join(files.rules, above)
	if err != nil {
		return nil, fmt.Errorf("joining the rules of an organization: %w", err)
	}
	made := &ruling{files, rules, l.interfaces, hashJudging(rules, r.hash)}
	kept.Store(made)
	return made, nil
}

// readers read the documents of each kind into what a rulebook is made of, and
// refuse what is malformed. Those of one kind come in the order of their names.
var readers = map[DocumentKind]func(*binding, *document) error{
	KindRules:       (*binding).readRules,
	KindABI:         (*binding).readABI,
	KindIDL:         (*binding).readIDL,
	KindLookupTable: (*binding).readLookupTable,
}

// binding is a rulebook while its documents are read.
type binding struct {
	// known refuses a delegation that the organization has not.
	known      func(delegation string) error
	policies   []policy.Policy
	limits     []policy.Limit
	interfaces signable.Interfaces
	abis       []evm.ABI
}

// bind makes the rulebook of an organization from all its documents, which it reads.
func (b *book) bind(org string, version uint64, documents []*document) (*rulebook, error) {
	made := b.file(org, version, documents)
	if _, err := made.laws(); err != nil {
		return nil, err
	}
	return made, nil
}

// file makes the rulebook of an organization; its documents are read when needed.
func (b *book) file(org string, version uint64, documents []*document) *rulebook {
	return file(version, documents, func(delegation string) error {
		_, err := b.delegation(org, delegation)
		return err
	})
}

// file makes a rulebook of documents; known refuses a delegation that is not there.
func file(version uint64, documents []*document, known func(delegation string) error) *rulebook {
	slices.SortFunc(documents, func(x, y *document) int { return strings.Compare(x.name().String(), y.name().String()) })
	return &rulebook{
		version: version, documents: documents, hash: hashDocuments(documents),
		laws: sync.OnceValues(func() (*laws, error) { return read(documents, known) }),
	}
}

// read reads and compiles documents, which come in their order.
func read(documents []*document, known func(delegation string) error) (*laws, error) {
	if size := bytesOf(documents); len(documents) > maxDocuments || size > maxDocumentsBytes {
		return nil, refusal.New(refusal.RequestInvalid, "an organization has at most %d documents of %d bytes together", maxDocuments, maxDocumentsBytes).With("field", "set")
	}
	reading := &binding{known: known}
	for _, d := range documents {
		read := readers[d.Kind]
		if read == nil {
			return nil, fmt.Errorf("reading document %s: its kind is not known to this build", d.id())
		}
		if err := read(reading, d); err != nil {
			return nil, err
		}
	}
	made := new(laws)
	var err error
	if reading.interfaces.EVM, err = evm.NewABIs(reading.abis); err != nil {
		return nil, refusal.New(refusal.PolicyInvalid, "documents of kind %s: %v", KindABI, err)
	}
	made.interfaces = reading.interfaces
	var problems []policy.Diagnostic
	if made.rules, problems = policy.Compile(reading.policies, reading.limits, nil); made.rules == nil {
		return nil, invalid(problems, func(id string) (string, string) { return "policy", strings.TrimPrefix(id, organizationPrefix) })
	}
	denies := slices.DeleteFunc(slices.Clone(reading.policies), func(p policy.Policy) bool { return p.Effect == policy.Allow })
	if made.narrowing, problems = policy.Compile(denies, reading.limits, nil); made.narrowing == nil {
		return nil, fmt.Errorf("compiling the policies that deny: %v", problems)
	}
	anybody := func(p policy.Policy) bool { return p.Effect == policy.Allow && p.Consensus == "" }
	if made.stamped = made.rules; !slices.ContainsFunc(reading.policies, anybody) {
		return made, nil
	}
	if made.stamped, problems = policy.Compile(slices.DeleteFunc(reading.policies, anybody), reading.limits, nil); made.stamped == nil {
		return nil, fmt.Errorf("compiling the policies for stamped requests: %v", problems)
	}
	return made, nil
}

// fileAll makes the rulebooks of all organizations that ever set a document.
func (b *book) fileAll(documents map[string]*document) {
	of := map[string][]*document{}
	for _, d := range documents {
		of[d.Organization] = append(of[d.Organization], d)
	}
	for id, o := range b.organizations {
		if o.PolicyVersion > 0 || len(of[id]) > 0 {
			b.rulebooks[id] = b.file(id, o.PolicyVersion, of[id])
		}
	}
}

func bytesOf(documents []*document) (n int) {
	for _, d := range documents {
		n += len(d.Content)
	}
	return n
}

// maxRuleID leaves room for the layer's prefix.
const maxRuleID = 64

// readRules reads a document of policies and limits.
func (b *binding) readRules(d *document) error {
	no := func(format string, args ...any) *refusal.Error {
		return refusal.New(refusal.PolicyInvalid, "%s: "+format, append([]any{d.name()}, args...)...).With("document", d.name().String())
	}
	policies, limits, err := policy.ParseRules(d.Content)
	if err != nil {
		return no("%v", err)
	}
	scoped := func(id, delegation string) error {
		if len(id) > maxRuleID {
			return no("%.80q: an id has at most %d characters here", id, maxRuleID).With("policy", id)
		}
		if delegation == "" {
			return nil
		}
		// A rule for nobody is a slip of the pen, and if it should have denied, a hole.
		if err := b.known(delegation); err != nil {
			return no("%q is for delegation %.80q, which this organization has not", id, delegation).With("policy", id)
		}
		return nil
	}
	for _, p := range policies {
		if err := scoped(p.ID, p.Scope.Delegation); err != nil {
			return err
		}
		p.ID = organizationPrefix + p.ID
		b.policies = append(b.policies, p)
	}
	for _, l := range limits {
		if err := scoped(l.ID, l.Delegation); err != nil {
			return err
		}
		l.ID = organizationPrefix + l.ID
		b.limits = append(b.limits, l)
	}
	return nil
}

// invalid is the refusal of rules that don't compile: the first error, and where
// it is; label says how a rule is called in the refusal's details.
func invalid(problems []policy.Diagnostic, label func(id string) (key, name string)) *refusal.Error {
	for _, d := range problems {
		if d.Severity != policy.SeverityError {
			continue
		}
		no := refusal.New(refusal.PolicyInvalid, "%s", d.Message).With("clause", d.Clause).With("code", d.Code).With("offset", fmt.Sprint(d.Offset))
		if key, name := label(d.ID); key != "" {
			no.With(key, name)
		}
		return no
	}
	return refusal.New(refusal.PolicyInvalid, "the policies or limits do not compile")
}

func (r *rulebook) document(name DocumentName) *document {
	for _, d := range r.documents {
		if d.name() == name {
			return d
		}
	}
	return nil
}

// unbound is the rulebook of an organization without documents.
var unbound = func() *rulebook {
	empty, _ := policy.Compile(nil, nil, nil)
	return &rulebook{hash: hashDocuments(nil), laws: func() (*laws, error) { return &laws{rules: empty, narrowing: empty, stamped: empty}, nil }}
}()

// rulebook finds an organization's; that of an unknown one is empty.
func (b *book) rulebook(org string) *rulebook {
	if r := find(b, b.rulebooks, org); r != nil {
		return r
	}
	return unbound
}

// layers are those above a delegation and its orders, at one moment.
func (b *book) layers(org, delegation string) (*PolicyFiles, *rulebook, *orders) {
	b.mu.RLock()
	defer b.mu.RUnlock()
	if r := b.rulebooks[org]; r != nil {
		return b.files, r, b.orders[delegation]
	}
	return b.files, unbound, b.orders[delegation]
}

// hashDocuments names the documents' kinds, names and contents (docs/formats.md).
func hashDocuments(documents []*document) [32]byte {
	out := framed(nil, "sigild/policy/documents/v1")
	out = binary.BigEndian.AppendUint64(out, uint64(len(documents)))
	for _, d := range documents {
		sum := sha256.Sum256(d.Content)
		out = append(framed(framed(out, string(d.Kind)), d.Name), sum[:]...)
	}
	return sha256.Sum256(out)
}

// framed appends a text after its length.
func framed(to []byte, text string) []byte {
	return append(binary.BigEndian.AppendUint64(to, uint64(len(text))), text...)
}

// hashJudging names all that judges a request: the joined rules and the documents.
func hashJudging(rules *policy.Set, documents [32]byte) [32]byte {
	set := rules.Hash()
	return sha256.Sum256(append(append(framed(nil, "sigild/policy/judging/v1"), set[:]...), documents[:]...))
}
