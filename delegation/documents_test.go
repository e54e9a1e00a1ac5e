package delegation

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/mpc/mpctest"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

func rulesDocument(name, content string) NewDocument {
	return NewDocument{DocumentName{KindRules, name}, []byte(content)}
}

// ruleText is a document of one policy.
func ruleText(id, effect, condition string) string {
	return fmt.Sprintf(`{"policies":[{"id":%q,"effect":"EFFECT_%s","condition":%q}]}`, id, effect, condition)
}

// setDocuments is an act of acme's root.
func (h *house) setDocuments(n DocumentChanges) (DocumentsSet, error) {
	n.Organization = site.acme
	return h.SetDocuments(context.Background(), stamped(site.acme, n, site.root...), n)
}

// mustSet sets documents at the version that stands.
func (h *house) mustSet(id string, set []NewDocument, remove ...DocumentName) DocumentsSet {
	h.t.Helper()
	made, err := h.setDocuments(DocumentChanges{RequestID: id, Expected: h.documents().Version, Set: set, Remove: remove})
	if err != nil {
		h.t.Fatal(err)
	}
	return made
}

func (h *house) documents() Documents {
	h.t.Helper()
	all, err := h.Documents(look(site.acme, site.erin.holder), site.acme, nil) // an end user may look
	if err != nil {
		h.t.Fatal(err)
	}
	return all
}

func TestDocumentsAreChecked(t *testing.T) {
	h := newFullHouse(t)
	good := rulesDocument("main", `{}`)
	many := make([]NewDocument, maxChanges+1)
	for i := range many {
		many[i] = rulesDocument(fmt.Sprint("d", i), `{}`)
	}
	one := func(content string) func(n *DocumentChanges) {
		return func(n *DocumentChanges) { n.Set = []NewDocument{rulesDocument("main", content)} }
	}
	h.unchanged("refused documents", func() {
		for name, c := range map[string]struct {
			change  func(n *DocumentChanges)
			reason  refusal.Reason
			details map[string]string
		}{
			"no change":            {func(n *DocumentChanges) { n.Set = nil }, refusal.RequestInvalid, map[string]string{"field": "set"}},
			"too many changes":     {func(n *DocumentChanges) { n.Set = many }, refusal.RequestInvalid, map[string]string{"field": "set"}},
			"no kind":              {func(n *DocumentChanges) { n.Set[0].Kind = "" }, refusal.RequestInvalid, map[string]string{"field": "kind"}},
			"an unknown kind":      {func(n *DocumentChanges) { n.Set[0].Kind = "song" }, refusal.RequestInvalid, map[string]string{"field": "kind"}},
			"no name":              {func(n *DocumentChanges) { n.Set[0].Name = "" }, refusal.RequestInvalid, map[string]string{"field": "name"}},
			"a path":               {func(n *DocumentChanges) { n.Set[0].Name = "a/b" }, refusal.RequestInvalid, map[string]string{"field": "name"}},
			"a long name":          {func(n *DocumentChanges) { n.Set[0].Name = strings.Repeat("x", 65) }, refusal.RequestInvalid, map[string]string{"field": "name"}},
			"named twice":          {func(n *DocumentChanges) { n.Set = append(n.Set, n.Set[0]) }, refusal.RequestInvalid, map[string]string{"field": "set"}},
			"set and removed":      {func(n *DocumentChanges) { n.Remove = []DocumentName{good.DocumentName} }, refusal.RequestInvalid, map[string]string{"field": "set"}},
			"a bad name to remove": {func(n *DocumentChanges) { n.Remove = []DocumentName{{KindRules, "ä"}} }, refusal.RequestInvalid, map[string]string{"field": "name"}},
			"no content":           {one(""), refusal.RequestInvalid, map[string]string{"field": "content"}},
			"too much content":     {one(strings.Repeat(" ", maxDocumentBytes+1)), refusal.RequestInvalid, map[string]string{"field": "content"}},
			"removing nothing":     {func(n *DocumentChanges) { n.Set, n.Remove = nil, []DocumentName{good.DocumentName} }, refusal.NotFound, map[string]string{"document": "rules/main"}},
			"another version":      {func(n *DocumentChanges) { n.Expected = 1 }, refusal.PolicyVersionMoved, map[string]string{"version": "0"}},
			"no JSON":              {one("policies"), refusal.PolicyInvalid, map[string]string{"document": "rules/main"}},
			"an unknown key":       {one(`{"policy":[]}`), refusal.PolicyInvalid, map[string]string{"document": "rules/main"}},
			"no grammar":           {one(ruleText("p", "DENY", "eth.tx.value <")), refusal.PolicyInvalid, map[string]string{"policy": "p", "clause": "condition", "code": "syntax"}},
			"no asset":             {one(`{"limits":[{"id":"l","asset":"gold","max":"1"}]}`), refusal.PolicyInvalid, map[string]string{"policy": "l", "clause": "limit"}},
			"one id in two": {func(n *DocumentChanges) {
				n.Set = []NewDocument{rulesDocument("a", ruleText("p", "DENY", "true")), rulesDocument("b", ruleText("p", "DENY", "true"))}
			}, refusal.PolicyInvalid, map[string]string{"policy": "p", "code": "duplicate_id"}},
			"a long id":          {one(ruleText(strings.Repeat("x", maxRuleID+1), "DENY", "true")), refusal.PolicyInvalid, map[string]string{"document": "rules/main"}},
			"for nobody":         {one(`{"policies":[{"id":"p","effect":"EFFECT_DENY","scope":{"delegation":"dlg_none"}}]}`), refusal.PolicyInvalid, map[string]string{"policy": "p"}},
			"a limit for nobody": {one(`{"limits":[{"id":"l","asset":"eip155:1/slip44:60","max":"1","delegation":"dlg_none"}]}`), refusal.PolicyInvalid, map[string]string{"policy": "l"}},
		} {
			n := DocumentChanges{RequestID: "r", Set: []NewDocument{good}}
			c.change(&n)
			_, err := h.setDocuments(n)
			no := wantRefusal(t, name, err, c.reason)
			for k, v := range c.details {
				if no.Details[k] != v {
					t.Errorf("%s: detail %s is %q, want %q (%v)", name, k, no.Details[k], v, no)
				}
			}
		}
	})
}

// What a document weighs is bounded for the organization, too.
func TestDocumentsOfAnOrganizationAreBounded(t *testing.T) {
	b := newBook()
	big := func(i int) *document {
		return &document{Kind: KindRules, Name: fmt.Sprint(i), Content: []byte(`{}` + strings.Repeat(" ", maxDocumentBytes-2))}
	}
	var all []*document
	for i := range maxDocumentsBytes/maxDocumentBytes + 1 {
		all = append(all, big(i))
	}
	_, err := b.bind("org", 1, all)
	wantRefusal(t, "too much", err, refusal.RequestInvalid)
	if _, err := b.bind("org", 1, all[:len(all)-1]); err != nil {
		t.Error(err)
	}
	all = nil
	for i := range maxDocuments + 1 {
		all = append(all, &document{Kind: KindRules, Name: fmt.Sprint(i), Content: []byte(`{}`)})
	}
	_, err = b.bind("org", 1, all)
	wantRefusal(t, "too many", err, refusal.RequestInvalid)
	if _, err := b.bind("org", 1, []*document{{Kind: "song", Name: "x"}}); err == nil {
		t.Error("a document of an unknown kind was read")
	}
}

func TestDocumentsAreReplacedAndRemoved(t *testing.T) {
	h := newFullHouse(t)
	first := h.mustSet("1", []NewDocument{rulesDocument("b", ruleText("p", "DENY", "true")), rulesDocument("a", `{}`)})
	second := h.mustSet("2", []NewDocument{rulesDocument("b", ruleText("p", "DENY", "false"))}, DocumentName{KindRules, "a"})
	if first.Version != 1 || second.Version != 2 || first.Hash == second.Hash {
		t.Errorf("versions %d and %d, hashes %x and %x", first.Version, second.Version, first.Hash, second.Hash)
	}
	e := h.last()
	if e.PolicySet != fmt.Sprintf("%x", second.Hash) || e.Facts["policy_version"] != "2" || e.Facts["removed.rules/a"] != "true" || len(e.Facts["set.rules/b"]) != 64 {
		t.Errorf("entry %+v, want one that names version, hash and changes", e)
	}
	check := func() {
		t.Helper()
		all := h.documents()
		if all.Version != 2 || all.Hash != second.Hash || all.Authority != "api" || len(all.List) != 1 || all.List[0].Name != "b" || all.List[0].Version != 2 || all.List[0].Content != nil {
			t.Errorf("documents %+v", all)
		}
		one, err := h.Documents(look(site.acme, site.root[2]), site.acme, &DocumentName{KindRules, "b"})
		if err != nil || len(one.List) != 1 || string(one.List[0].Content) != ruleText("p", "DENY", "false") {
			t.Errorf("document %+v, %v", one, err)
		}
		_, err = h.Documents(look(site.acme, site.root[2]), site.acme, &DocumentName{KindRules, "a"})
		wantRefusal(t, "a removed document", err, refusal.NotFound)
	}
	check()
	h.restart()
	check()
	h.mustSet("3", nil, DocumentName{KindRules, "b"})
	h.restart()
	if all := h.documents(); all.Version != 3 || len(all.List) != 0 || all.Hash != hashDocuments(nil) {
		t.Errorf("after all was removed: %+v", all)
	}
}

// Two writers who read the same version: one wins, the other is told.
func TestWritersOfDocumentsDoNotUndoEachOther(t *testing.T) {
	h := newFullHouse(t)
	errs := make([]error, 8)
	var wg sync.WaitGroup
	for i := range errs {
		wg.Go(func() {
			_, errs[i] = h.setDocuments(DocumentChanges{RequestID: fmt.Sprint("w", i), Set: []NewDocument{rulesDocument(fmt.Sprint("d", i), `{}`)}})
		})
	}
	wg.Wait()
	won := 0
	for i, err := range errs {
		if err == nil {
			won++
			continue
		}
		if no := wantRefusal(t, fmt.Sprint("writer ", i), err, refusal.PolicyVersionMoved); no.Details["version"] != "1" {
			t.Errorf("writer %d was told version %q", i, no.Details["version"])
		}
	}
	if all := h.documents(); won != 1 || all.Version != 1 || len(all.List) != 1 {
		t.Errorf("%d writers won, documents %+v", won, all)
	}
}

// A document that was changed on disk by hand, or names what isn't there, stops the start.
func TestBadDocumentsStopTheStart(t *testing.T) {
	for name, d := range map[string]document{
		"another id":             {V: 1, Organization: site.acme, Kind: KindRules, Name: "b", Content: []byte(`{}`)},
		"no organization":        {V: 1, Organization: "org_none", Kind: KindRules, Name: "a", Content: []byte(`{}`)},
		"a kind of later builds": {V: 1, Organization: site.acme, Kind: "song", Name: "a", Content: []byte(`{}`)},
		"a later version":        {V: 2, Organization: site.acme, Kind: KindRules, Name: "a", Content: []byte(`{}`)},
	} {
		h := newHouse(t)
		id := d.id()
		if name == "another id" {
			id = site.acme + "/rules/a"
		}
		h.put(func(tx *vault.Tx) error { return store(tx, vault.TypeDocument, id, d) })
		if s, err := Open(context.Background(), h.cfg); err == nil {
			s.Close()
			t.Errorf("%s: started", name)
		}
	}
}

// What a start does not read, the rules of organizations and delegations, is refused
// when it is needed: to those whose it is, and to nobody else.
func TestRulesThatNoBuildReadsAreRefusedToTheirOwn(t *testing.T) {
	h := newFullHouse(t)
	if st, err := h.Current("dlg_1"); err != nil || st == nil {
		t.Fatalf("before: %+v, %v", st, err)
	}
	h.put(func(tx *vault.Tx) error {
		d := delegationRecord{}
		err := tx.With(vault.TypeDelegation, "dlg_1", func(b []byte) error { return decodeRecord(b, &d) })
		d.Policies[0].Condition = "("
		return errors.Join(err, store(tx, vault.TypeDelegation, "dlg_1", &d))
	})
	h.restart()
	_, err := h.Current("dlg_1")
	wantRefusal(t, "a delegation whose policies don't compile", err, refusal.PolicyInvalid)
	if _, err := h.Current("dlg_2"); err != nil {
		t.Errorf("its neighbour: %v", err)
	}
	bad := &document{V: 1, Organization: site.acme, Kind: KindRules, Name: "a", Content: []byte(`{`)}
	h.put(func(tx *vault.Tx) error { return store(tx, vault.TypeDocument, bad.id(), bad) })
	h.restart()
	_, err = h.Current("dlg_2")
	wantRefusal(t, "a delegation below documents that don't compile", err, refusal.PolicyInvalid)
	o, err := h.book.organization(site.globex)
	if err != nil {
		t.Fatal(err)
	}
	st, err := h.stamper(o, site.gina.id, []credential.PublicKey{site.gina.key.Public()})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.judgedBy(st, true); err != nil {
		t.Errorf("another organization: %v", err)
	}
	_, err = h.Limits(look(site.acme, site.root[0]), site.acme, "")
	wantRefusal(t, "their limits", err, refusal.PolicyInvalid)
}

// decide judges a request without payload by the standing of a delegation.
func (h *house) decide(delegation string) policy.Decision {
	h.t.Helper()
	st, err := h.Current(delegation)
	if err != nil {
		h.t.Fatal(err)
	}
	return st.Rules.Evaluate(policy.Request{DelegationID: delegation, Now: h.clock.now()})
}

// The organization narrows every delegation, and widens none whose owner did not say so.
func TestOrganizationRulesComposeWithDelegations(t *testing.T) {
	always := policy.Policy{Name: "always", Effect: policy.Allow, Condition: "true", Lang: policy.LangSigild}
	never := always
	never.Condition = "false"
	limit := `{"limits":[{"id":"l","asset":"eip155:1/slip44:60","max":"1","include_fees":true}]}`
	for name, c := range map[string]struct {
		own      []policy.Policy
		allows   bool // organization_allows
		document string
		want     policy.Outcome
		rule     string // of the organization
		limits   int
	}{
		"own rules alone":                  {own: []policy.Policy{always}, document: `{}`, want: policy.Allowed},
		"denied by the organization":       {own: []policy.Policy{always}, document: ruleText("no", "DENY", "true"), want: policy.DenyExplicit, rule: "organization/no"},
		"an error in its DENY":             {own: []policy.Policy{always}, document: ruleText("no", "DENY", "[1][1] == 1"), want: policy.DenyError, rule: "organization/no"},
		"allowed by the organization":      {own: []policy.Policy{never}, document: ruleText("yes", "ALLOW", "true"), want: policy.DenyImplicit},
		"allowed with the owner's leave":   {own: []policy.Policy{never}, allows: true, document: ruleText("yes", "ALLOW", "true"), want: policy.Allowed, rule: "organization/yes"},
		"allowed without rules of its own": {allows: true, document: ruleText("yes", "ALLOW", "true"), want: policy.Allowed, rule: "organization/yes"},
		"denied all the same":              {own: []policy.Policy{always}, allows: true, document: ruleText("no", "DENY", "true"), want: policy.DenyExplicit, rule: "organization/no"},
		"limited":                          {own: []policy.Policy{always}, document: limit, want: policy.Allowed, limits: 1},
	} {
		t.Run(name, func(t *testing.T) {
			h := newHouse(t, withWallet)
			n := newDelegation("d", solWallet)
			n.Policies, n.OrganizationAllows = c.own, c.allows
			made, err := h.createDelegation(n)
			if err != nil {
				t.Fatal(err)
			}
			h.wantCeremony(made.CeremonyID, statusDone)
			before, err := h.Current(made.DelegationID)
			if err != nil {
				t.Fatal(err)
			}
			h.mustSet("s", []NewDocument{rulesDocument("main", c.document)})
			check := func() {
				t.Helper()
				d := h.decide(made.DelegationID)
				if d.Outcome != c.want || c.rule != "" && d.Rule != c.rule || c.rule == "" && strings.HasPrefix(d.Rule, organizationPrefix) {
					t.Errorf("decision %v by %q, want %v by %q", d.Outcome, d.Rule, c.want, c.rule)
				}
				now, err := h.Current(made.DelegationID)
				if err != nil || len(now.Rules.Limits()) != c.limits || now.PolicySet == before.PolicySet || now.Version != before.Version {
					t.Errorf("standing %+v, %v", now, err)
				}
				shown, err := h.Delegation(look(site.acme, site.dana.holder), site.acme, made.DelegationID)
				if err != nil || shown.PolicySet != now.PolicySet || shown.OrganizationAllows != c.allows {
					t.Errorf("shown %+v, %v", shown, err)
				}
			}
			check()
			h.restart()
			check()
		})
	}
}

// A rule for one delegation judges that one.
func TestOrganizationRulesMayNameADelegation(t *testing.T) {
	h := newFullHouse(t)
	h.mustSet("s", []NewDocument{rulesDocument("main", `{"policies":[{"id":"no","effect":"EFFECT_DENY","scope":{"delegation":"dlg_1"}}],`+
		`"limits":[{"id":"no","asset":"eip155:1/slip44:60","max":"1","delegation":"dlg_1"}]}`)})
	if d := h.decide("dlg_1"); d.Outcome != policy.DenyExplicit || d.Rule != "organization/no" {
		t.Errorf("dlg_1: %+v", d)
	}
	if d := h.decide("dlg_2"); d.Outcome != policy.DenyImplicit {
		t.Errorf("dlg_2: %+v", d)
	}
}

// The rules of an organization are compiled once for all its delegations, and
// joined again only when a layer changed.
func TestStandingsAreJoinedOnce(t *testing.T) {
	h := newFullHouse(t)
	first, err := h.Current("dlg_1")
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := h.Current("dlg_1"); again != first {
		t.Error("nothing changed, and it was joined anew")
	}
	h.mustSet("s", []NewDocument{rulesDocument("main", `{}`)})
	now, err := h.Current("dlg_1")
	if err != nil || now == first || now.PolicySet == first.PolicySet || now.Rules.Hash() != first.Rules.Hash() {
		t.Errorf("standing %+v, %v", now, err)
	}
}

// The documents of one organization say nothing in another.
func TestDocumentsStayInTheirOrganization(t *testing.T) {
	h := newFullHouse(t)
	h.mustSet("s", []NewDocument{rulesDocument("main", ruleText("no", "DENY", "true"))})
	all, err := h.Documents(look(site.globex, site.globexRoot...), site.globex, nil)
	if err != nil || all.Version != 0 || len(all.List) != 0 || all.Hash != hashDocuments(nil) {
		t.Errorf("globex sees %+v, %v", all, err)
	}
	if got := slices.Collect(maps.Keys(h.book.rulebooks)); !reflect.DeepEqual(got, []string{site.acme}) {
		t.Errorf("rulebooks of %v", got)
	}
	n := DocumentChanges{RequestID: "g", Organization: site.globex, Set: []NewDocument{rulesDocument("main",
		`{"policies":[{"id":"p","effect":"EFFECT_DENY","scope":{"delegation":"dlg_1"}}]}`)}}
	_, err = h.SetDocuments(context.Background(), stamped(site.globex, n, site.globexRoot...), n)
	foreign := wantRefusal(t, "a rule for another organization's delegation", err, refusal.PolicyInvalid)
	n.Set[0].Content = []byte(strings.ReplaceAll(string(n.Set[0].Content), "dlg_1", "dlg_9"))
	_, err = h.SetDocuments(context.Background(), stamped(site.globex, n, site.globexRoot...), n)
	none := wantRefusal(t, "a rule for no delegation", err, refusal.PolicyInvalid)
	if strings.ReplaceAll(none.Message, "dlg_9", "dlg_1") != foreign.Message {
		t.Errorf("foreign is %q, unknown is %q", foreign, none)
	}
}

// BenchmarkJoin is the first look at a delegation after its organization's rules
// changed: 64 rules above 1 of its own.
func BenchmarkJoin(b *testing.B) {
	h := newHouse(b, withWallet, func(h *house) { h.active("dlg_1", mpctest.Ed25519DelegateSet(b)) })
	var text []string
	for i := range 64 {
		text = append(text, fmt.Sprintf(`{"id":"p%d","effect":"EFFECT_DENY","condition":"eth.tx.value > %d"}`, i, i))
	}
	h.mustSet("s", []NewDocument{rulesDocument("main", `{"policies":[`+strings.Join(text, ",")+`]}`)})
	if _, err := h.book.now("dlg_1"); err != nil {
		b.Fatal(err)
	}
	st := h.book.standings.get("dlg_1")
	for b.Loop() {
		st.joined.Store(nil)
		if _, err := h.book.join(st); err != nil {
			b.Fatal(err)
		}
	}
}
