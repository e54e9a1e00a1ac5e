package delegation

import (
	"context"
	"crypto/sha256"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// An organization's policy authority sets documents: named texts, each of one
// kind, each put or removed whole. All documents of an organization have one
// version, kept in its record, that moves with every change, and one hash, which
// is part of what judges every request (rulebook.go). Who sets them is the
// organization's PolicyAuthority, fixed when it was made.
//
// This is also the place for what decoders need to know of contracts and
// programs. A further kind is: a word below, a value
// of DocumentKind in policy.proto and its row in server/documents.go, a reader in
// [readers], which refuses what is malformed before anything is stored, and a field
// of [rulebook] where the reader leaves what it made, for authority.go to hand to
// signing in the Standing. Version, hash, journal, act and record are those of all.

// DocumentKind says what a document is.
type DocumentKind string

// The kinds.
const (
	// KindRules are policies and limits, in the form of policy.ParseRules.
	KindRules DocumentKind = "rules"
	// KindABI is the ABI of an EVM contract; the name is "<chain id>.<address>".
	KindABI DocumentKind = "abi"
	// KindIDL is the Anchor IDL of a Solana program, whose address is the name.
	KindIDL DocumentKind = "idl"
	// KindLookupTable is the beginning of a Solana lookup table, whose address is the name.
	KindLookupTable DocumentKind = "lookup_table"
)

// Bounds of documents.
const (
	maxDocumentBytes  = 512 << 10
	maxDocuments      = 256     // of an organization
	maxDocumentsBytes = 8 << 20 // of all of them
	maxChanges        = 64
)

// DocumentName names a document inside its organization.
type DocumentName struct {
	Kind DocumentKind
	Name string
}

func (n DocumentName) String() string { return string(n.Kind) + "/" + n.Name }

func (n DocumentName) check() error {
	if readers[n.Kind] == nil {
		return refusal.New(refusal.RequestInvalid, "document %.64q is of no kind that this build knows", n.Name).With("field", "kind")
	}
	bad := strings.IndexFunc(n.Name, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && r != '_' && r != '-' && r != '.'
	})
	if n.Name == "" || len(n.Name) > 64 || bad >= 0 {
		return refusal.New(refusal.RequestInvalid, "a document's name has 1 to 64 letters, digits, _, - and .").With("field", "name")
	}
	return nil
}

// document is a record of type vault.TypeDocument; its id is [document.id].
type document struct {
	V            int          `json:"v"`
	Organization string       `json:"organization"`
	Kind         DocumentKind `json:"kind"`
	Name         string       `json:"name"`
	// Version is the organization's at which it was set.
	Version uint64 `json:"version"`
	Content []byte `json:"content"`
}

func (d *document) name() DocumentName { return DocumentName{d.Kind, d.Name} }

func (d *document) id() string { return d.Organization + "/" + d.name().String() }

// Document is what a member may see of one.
type Document struct {
	DocumentName
	Version uint64
	SHA256  [32]byte
	// Content is nil in a list.
	Content []byte
}

// NewDocument is a document to put.
type NewDocument struct {
	DocumentName
	Content []byte
}

func (d NewDocument) check() error {
	if err := d.DocumentName.check(); err != nil {
		return err
	}
	if len(d.Content) == 0 || len(d.Content) > maxDocumentBytes {
		return refusal.New(refusal.RequestInvalid, "document %s must have 1 to %d bytes", d.DocumentName, maxDocumentBytes).With("field", "content")
	}
	return nil
}

// DocumentChanges asks to put and remove documents as one act.
type DocumentChanges struct {
	RequestID    string
	Organization string
	// Expected is the version that is replaced.
	Expected uint64
	Set      []NewDocument
	Remove   []DocumentName
}

// DocumentsSet answers SetDocuments.
type DocumentsSet struct {
	Version uint64   `json:"version"`
	Hash    [32]byte `json:"documents_hash"`
}

// SetDocuments changes an organization's documents under its root quorum, when its
// policy authority is api. Every document of the new state was read and compiled
// before anything is stored. Durable on return; a request under way that was judged
// by the old state is judged anew, or stops before its last share leaves.
func (s *Service) SetDocuments(ctx context.Context, a Actor, n DocumentChanges) (DocumentsSet, error) {
	authorize := func() error {
		if err := s.root(a, n.Organization); err != nil {
			return err
		}
		return s.byAPI(n.Organization)
	}
	if err := authorize(); err != nil { // before the work of compiling
		return DocumentsSet{}, err
	}
	if err := n.check(); err != nil {
		return DocumentsSet{}, err
	}
	// Compiling is slow and the writer is everybody's: it is done before, and again
	// only if somebody else was faster.
	from := s.book.rulebook(n.Organization)
	next, bad := s.book.changed(from, n, n.Expected+1)
	return act(ctx, s, a, n.Organization, n.RequestID, authorize, func(tx *vault.Tx, e *journal.Entry) (DocumentsSet, error) {
		o, err := s.book.organization(n.Organization)
		if err != nil {
			return DocumentsSet{}, err
		}
		if o.PolicyVersion != n.Expected {
			return DocumentsSet{}, refusal.New(refusal.PolicyVersionMoved, "the organization's documents are at version %d, not %d", o.PolicyVersion, n.Expected).
				With("version", fmt.Sprint(o.PolicyVersion))
		}
		if now := s.book.rulebook(n.Organization); now != from {
			next, bad = s.book.changed(now, n, n.Expected+1)
		}
		if bad != nil {
			return DocumentsSet{}, bad
		}
		return s.setDocuments(tx, e, o, next)
	})
}

// check refuses changes that no state could take.
func (n DocumentChanges) check() error {
	if all := len(n.Set) + len(n.Remove); all == 0 || all > maxChanges {
		return refusal.New(refusal.RequestInvalid, "1 to %d documents are set or removed at a time", maxChanges).With("field", "set")
	}
	seen := map[DocumentName]bool{}
	once := func(name DocumentName) error {
		if err := name.check(); err != nil {
			return err
		}
		if seen[name] {
			return refusal.New(refusal.RequestInvalid, "document %s is named twice", name).With("field", "set")
		}
		seen[name] = true
		return nil
	}
	for _, d := range n.Set {
		if err := d.check(); err != nil {
			return err
		}
		if err := once(d.DocumentName); err != nil {
			return err
		}
	}
	for _, name := range n.Remove {
		if err := once(name); err != nil {
			return err
		}
	}
	return nil
}

// setDocuments writes what differs from the state that stands, the organization's
// version and the entry.
func (s *Service) setDocuments(tx *vault.Tx, e *journal.Entry, o *organization, next *rulebook) (DocumentsSet, error) {
	changed := *o
	changed.PolicyVersion = next.version
	tx.Advance()
	e.Facts = map[string]string{"policy_version": fmt.Sprint(next.version)}
	for _, d := range next.documents {
		if d.Version != next.version {
			continue
		}
		if err := store(tx, vault.TypeDocument, d.id(), d); err != nil {
			return DocumentsSet{}, err
		}
		e.Facts["set."+d.name().String()] = fmt.Sprintf("%x", sha256.Sum256(d.Content))
	}
	for _, d := range s.book.rulebook(o.ID).documents {
		if next.document(d.name()) != nil {
			continue
		}
		if err := tx.Delete(vault.TypeDocument, d.id()); err != nil {
			return DocumentsSet{}, fmt.Errorf("removing document %s: %w", d.name(), err)
		}
		e.Facts["removed."+d.name().String()] = "true"
	}
	if err := store(tx, vault.TypeOrganization, o.ID, &changed); err != nil {
		return DocumentsSet{}, err
	}
	e.PolicySet = fmt.Sprintf("%x", next.hash)
	s.book.change(tx, func() {
		s.book.organizations[o.ID], s.book.rulebooks[o.ID] = &changed, next
	})
	tx.OnCommit(func() {
		s.log.Info("an organization's documents changed", "organization", o.ID, "version", next.version, "documents", len(next.documents))
	})
	return DocumentsSet{Version: next.version, Hash: next.hash}, nil
}

// Documents are an organization's documents and their version.
type Documents struct {
	Version   uint64
	Hash      [32]byte
	Authority string
	List      []Document
}

// Documents lists an organization's documents to any of its members, or shows the
// one that is named with its content.
func (s *Service) Documents(a Actor, org string, one *DocumentName) (Documents, error) {
	if err := s.member(a, org); err != nil {
		return Documents{}, err
	}
	o, err := s.book.organization(org)
	if err != nil {
		return Documents{}, err
	}
	b := s.book.rulebook(org)
	out := Documents{Version: o.PolicyVersion, Hash: b.hash, Authority: o.PolicyAuthority}
	for _, d := range b.documents {
		shown := Document{DocumentName: d.name(), Version: d.Version, SHA256: sha256.Sum256(d.Content)}
		if one != nil {
			shown.Content = d.Content
		}
		if one == nil || *one == shown.DocumentName {
			out.List = append(out.List, shown)
		}
	}
	if one != nil && len(out.List) == 0 {
		return Documents{}, refusal.New(refusal.NotFound, "no such document")
	}
	return out, nil
}

// changed is the rulebook after changes, or the refusal that says what is wrong with it.
func (b *book) changed(from *rulebook, n DocumentChanges, version uint64) (*rulebook, error) {
	all := map[DocumentName]*document{}
	for _, d := range from.documents {
		all[d.name()] = d
	}
	for _, name := range n.Remove {
		if all[name] == nil {
			return nil, refusal.New(refusal.NotFound, "no such document").With("document", name.String())
		}
		delete(all, name)
	}
	for _, d := range n.Set {
		all[d.DocumentName] = &document{V: recordVersion, Organization: n.Organization, Kind: d.Kind, Name: d.Name, Version: version, Content: d.Content}
	}
	return b.bind(n.Organization, version, slices.Collect(maps.Values(all)))
}
