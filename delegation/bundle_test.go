package delegation

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/sigild/sigild/bundle"
	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// bundled is an organization whose policies come from bundles: three keys, quorum 2.
type bundled struct {
	*house
	org  string
	keys []holder
	root holder
}

func newBundled(t *testing.T) *bundled {
	t.Helper()
	b := &bundled{house: newHouse(t), root: newHolder(credential.ForOrganizationRoot, "rita")}
	n := NewOrganization{RequestID: "bundled", Name: "bundled", Quorum: 1, Root: []NewCredential{b.root.NewCredential}, Bundle: &NewBundleAuthority{Quorum: 2}}
	for _, name := range []string{"kim", "kai", "ken"} {
		k := newHolder(credential.ForPolicyBundle, name)
		b.keys, n.Bundle.Keys = append(b.keys, k), append(n.Bundle.Keys, k.NewCredential)
	}
	made, err := b.CreateOrganization(context.Background(), stamped("", n, site.operators...), n)
	if err != nil {
		t.Fatal(err)
	}
	b.org = made.OrganizationID
	return b
}

// sign makes a bundle of one document that these keys signed.
func (b *bundled) sign(version uint64, rules string, by ...holder) *bundle.Bundle {
	b.t.Helper()
	out := &bundle.Bundle{ApplianceID: site.appliance, OrganizationID: b.org, Version: version,
		Documents: []bundle.Document{{Kind: "rules", Name: "main", Content: []byte(rules)}}}
	for _, k := range by {
		if err := out.Sign(k.key); err != nil {
			b.t.Fatal(err)
		}
	}
	return out
}

func (b *bundled) apply(id string, file *bundle.Bundle) (BundleApplied, error) {
	b.t.Helper()
	data, err := file.Encode()
	if err != nil {
		b.t.Fatal(err)
	}
	n := NewBundle{RequestID: id, Bundle: data}
	return b.ApplyBundle(context.Background(), stamped("", n), n)
}

func TestBundleReplacesAllDocuments(t *testing.T) {
	b := newBundled(t)
	first, err := b.apply("1", b.sign(5, ruleText("p", "DENY", "true"), b.keys[0], b.keys[2]))
	if err != nil || first.Version != 5 || first.OrganizationID != b.org {
		t.Fatalf("applied %+v, %v", first, err)
	}
	e := b.last()
	want := []string{b.keys[0].PublicKey.ID(), b.keys[2].PublicKey.ID()}
	slices.Sort(want)
	slices.Sort(e.Credentials)
	if e.Kind != journal.KindAct || e.Organization != b.org || !reflect.DeepEqual(e.Credentials, want) || e.Facts["policy_version"] != "5" || e.PolicySet != fmt.Sprintf("%x", first.Hash) || len(e.Facts["set.rules/main"]) != 64 {
		t.Errorf("entry %+v", e)
	}
	other := b.sign(9, ruleText("q", "DENY", "true"))
	other.Documents[0].Name = "other"
	for _, k := range b.keys {
		if err := other.Sign(k.key); err != nil {
			t.Fatal(err)
		}
	}
	second, err := b.apply("2", other)
	if err != nil || b.last().Facts["removed.rules/main"] != "true" {
		t.Fatalf("applied %+v, %v, entry %+v", second, err, b.last())
	}
	check := func() {
		t.Helper()
		all, err := b.Documents(look(b.org, b.root), b.org, nil)
		if err != nil || all.Version != 9 || all.Authority != "bundle" || all.Hash != second.Hash || len(all.List) != 1 || all.List[0].Name != "other" {
			t.Errorf("documents %+v, %v", all, err)
		}
		if set := rulesOf(t, b.book.rulebook(b.org)); set == rulesOf(t, unbound) {
			t.Error("its rules are not those of the bundle")
		}
	}
	check()
	again, err := b.apply("2", other)
	if err != nil || again != second {
		t.Errorf("asked again: %+v, %v", again, err)
	}
	b.restart()
	check()
}

func TestBundlesAreRefused(t *testing.T) {
	b := newBundled(t)
	good := ruleText("p", "DENY", "true")
	if _, err := b.apply("1", b.sign(5, good, b.keys...)); err != nil {
		t.Fatal(err)
	}
	stranger := newHolder(credential.ForPolicyBundle, "kit")
	changed := func(change func(f *bundle.Bundle)) *bundle.Bundle {
		f := b.sign(6, good)
		change(f)
		for _, k := range b.keys {
			if err := f.Sign(k.key); err != nil {
				t.Fatal(err)
			}
		}
		return f
	}
	tampered := b.sign(6, good, b.keys...)
	tampered.Version = 7
	b.unchanged("refused bundles", func() {
		for name, c := range map[string]struct {
			file   *bundle.Bundle
			reason refusal.Reason
		}{
			"nobody's":               {b.sign(6, good), refusal.BundleInvalid},
			"one of two":             {b.sign(6, good, b.keys[0]), refusal.BundleInvalid},
			"one and a stranger":     {b.sign(6, good, b.keys[0], stranger), refusal.BundleInvalid},
			"two and a stranger":     {b.sign(6, good, b.keys[0], b.keys[1], stranger), refusal.BundleInvalid},
			"the root's":             {b.sign(6, good, b.root), refusal.BundleInvalid},
			"tampered":               {tampered, refusal.BundleInvalid},
			"another appliance's":    {changed(func(f *bundle.Bundle) { f.ApplianceID = "app_other" }), refusal.BundleInvalid},
			"another organization's": {changed(func(f *bundle.Bundle) { f.OrganizationID = site.acme }), refusal.BundleInvalid},
			"nobody's organization":  {changed(func(f *bundle.Bundle) { f.OrganizationID = "org_none" }), refusal.BundleInvalid},
			"the same version":       {b.sign(5, good, b.keys...), refusal.PolicyVersionMoved},
			"a downgrade":            {b.sign(4, good, b.keys...), refusal.PolicyVersionMoved},
			"rules that are none":    {b.sign(6, `{"policies":1}`, b.keys...), refusal.PolicyInvalid},
			"rules without grammar":  {b.sign(6, ruleText("p", "DENY", "true &&"), b.keys...), refusal.PolicyInvalid},
			"an unknown kind":        {changed(func(f *bundle.Bundle) { f.Documents[0].Kind = "song" }), refusal.RequestInvalid},
			"a bad name":             {changed(func(f *bundle.Bundle) { f.Documents[0].Name = "a b" }), refusal.RequestInvalid},
			"an empty document":      {changed(func(f *bundle.Bundle) { f.Documents[0].Content = nil }), refusal.RequestInvalid},
		} {
			_, err := b.apply("r", c.file)
			wantRefusal(t, name, err, c.reason)
		}
		n := NewBundle{RequestID: "r", Bundle: []byte("SGPB")}
		_, err := b.ApplyBundle(context.Background(), stamped("", n), n)
		if no := wantRefusal(t, "no bundle", err, refusal.RequestInvalid); no.Details["field"] != "bundle" {
			t.Errorf("details %v", no.Details)
		}
	})
	// What is unknown, what takes none and what is badly signed look alike.
	said := map[string]bool{}
	for _, f := range []*bundle.Bundle{b.sign(6, good), changed(func(f *bundle.Bundle) { f.OrganizationID = "org_none" }), changed(func(f *bundle.Bundle) { f.OrganizationID = site.acme })} {
		_, err := b.apply("r", f)
		said[wantRefusal(t, "a bundle", err, refusal.BundleInvalid).Message] = true
	}
	if len(said) != 1 {
		t.Errorf("refusals tell organizations apart: %v", said)
	}
}

// Under bundle no call of the API sets policies; under api no bundle does.
func TestPolicyAuthorityIsFixed(t *testing.T) {
	b := newBundled(t)
	user, n := newMember(b.org, "dora")
	made, err := b.CreateUser(context.Background(), stamped(b.org, n, b.root), n)
	if err != nil {
		t.Fatal(err)
	}
	user.id = made.UserID
	k := &key{V: recordVersion, ID: "key_b", Organization: b.org, Owner: user.id, Scheme: "eddsa-ed25519", CreatedAt: began, Origin: "in_process", Status: statusActive}
	w := &wallet{V: recordVersion, ID: "wal_b", Organization: b.org, Key: k.ID, Owner: user.id, Chain: cluster, Name: "main", Status: statusActive, CreatedAt: began}
	bot := NewUser{RequestID: "bot2", Organization: b.org, Name: "bot", Kind: DelegatedUser}
	botMade, err := b.CreateUser(context.Background(), stamped(b.org, bot, b.root), bot)
	if err != nil {
		t.Fatal(err)
	}
	b.put(func(tx *vault.Tx) error {
		if err := store(tx, vault.TypeKey, k.ID, k); err != nil {
			return err
		}
		return store(tx, vault.TypeWallet, w.ID, w)
	})
	b.restart()
	delegate := func(id string, change func(n *NewDelegation)) error {
		n := newDelegation(id, w.ID)
		n.Organization, n.DelegatedUser, n.Policies, n.OrganizationAllows = b.org, botMade.UserID, nil, true
		change(&n)
		_, err := b.CreateDelegation(context.Background(), stamped(b.org, n, user.holder), n)
		return err
	}
	b.unchanged("policies by API under bundle", func() {
		set := DocumentChanges{RequestID: "s", Organization: b.org, Set: []NewDocument{rulesDocument("main", `{}`)}}
		_, err := b.SetDocuments(context.Background(), stamped(b.org, set, b.root), set)
		if no := wantRefusal(t, "SetDocuments", err, refusal.PolicyAuthority); no.Details["authority"] != "bundle" || !strings.Contains(no.Message, "signed bundles alone") {
			t.Errorf("refusal %v %v", no, no.Details)
		}
		wantRefusal(t, "a delegation's own policy", delegate("d", func(n *NewDelegation) { n.Policies = []policy.Policy{allow} }), refusal.PolicyAuthority)
		wantRefusal(t, "a delegation's own limit", delegate("d", func(n *NewDelegation) {
			n.Limits = []policy.Limit{{Name: "l", Asset: cluster + "/slip44:501"}}
		}), refusal.PolicyAuthority)
		wantRefusal(t, "a delegation's own template", delegate("d", func(n *NewDelegation) { n.Templates = []Template{payTemplate()} }), refusal.PolicyAuthority)
		wantRefusal(t, "a delegation under nothing", delegate("d", func(n *NewDelegation) { n.OrganizationAllows = false }), refusal.RequestInvalid)
	})
	if err := delegate("e", func(*NewDelegation) {}); err != nil {
		t.Errorf("a delegation under the bundle: %v", err)
	}
}

func TestBundleAuthorityIsChecked(t *testing.T) {
	h := newHouse(t)
	good := newHolder(credential.ForPolicyBundle, "kim")
	wrong := newHolder(credential.ForUser, "kai")
	h.unchanged("refused authorities", func() {
		for name, a := range map[string]NewBundleAuthority{
			"no keys":           {Quorum: 1},
			"no quorum":         {Keys: []NewCredential{good.NewCredential}},
			"a quorum too high": {Keys: []NewCredential{good.NewCredential}, Quorum: 2},
			"a key twice":       {Keys: []NewCredential{good.NewCredential, good.NewCredential}, Quorum: 1},
			"another's proof":   {Keys: []NewCredential{wrong.NewCredential}, Quorum: 1},
		} {
			n := NewOrganization{RequestID: "o", Name: "o", Quorum: 1, Root: []NewCredential{site.root[0].NewCredential}, Bundle: &a}
			_, err := h.CreateOrganization(context.Background(), stamped("", n, site.operators...), n)
			wantRefusal(t, name, err, refusal.RequestInvalid)
		}
	})
}

// signersFile names new keys; these sign it.
func (b *bundled) signersFile(version uint64, quorum int, next []holder, by ...holder) []byte {
	b.t.Helper()
	f := &bundle.Signers{ApplianceID: site.appliance, OrganizationID: b.org, Version: version, Quorum: quorum}
	for _, k := range next {
		f.Keys = append(f.Keys, bundle.Signer{Name: k.Name, Key: k.PublicKey, Proof: k.Proof})
	}
	f.Sort()
	for _, k := range by {
		if err := f.Sign(k.key); err != nil {
			b.t.Fatal(err)
		}
	}
	data, err := f.Encode()
	if err != nil {
		b.t.Fatal(err)
	}
	return data
}

// A quorum of the old keys names new ones: these count from then on, those no more,
// whatever they signed before.
func TestBundleKeysAreReplaced(t *testing.T) {
	b := newBundled(t)
	next := []holder{newHolder(credential.ForPolicyBundle, "mia"), newHolder(credential.ForPolicyBundle, "moe")}
	apply := func(id string, data []byte) (BundleApplied, error) {
		n := NewBundle{RequestID: id, Bundle: data}
		return b.ApplyBundle(context.Background(), stamped("", n), n)
	}
	rules := ruleText("p", "DENY", "true")
	if _, err := b.apply("one", b.sign(5, rules, b.keys[0], b.keys[1])); err != nil {
		t.Fatal(err)
	}
	before, err := b.Documents(look(b.org, b.root), b.org, nil)
	if err != nil {
		t.Fatal(err)
	}
	b.unchanged("refused signers", func() {
		_, err := apply("a", b.signersFile(6, 2, next, b.keys[0]))
		wantRefusal(t, "one of two", err, refusal.BundleInvalid)
		_, err = apply("b", b.signersFile(6, 2, next, next...))
		wantRefusal(t, "signed by the new ones", err, refusal.BundleInvalid)
		_, err = apply("c", b.signersFile(5, 2, next, b.keys[0], b.keys[1]))
		wantRefusal(t, "a version that stands", err, refusal.PolicyVersionMoved)
		wrong := newHolder(credential.ForOperator, "otto")
		_, err = apply("d", b.signersFile(6, 1, []holder{wrong}, b.keys[0], b.keys[1]))
		wantRefusal(t, "a proof for something else", err, refusal.RequestInvalid)
		_, err = apply("e", append(b.signersFile(6, 2, next, b.keys[0], b.keys[1]), 0))
		wantRefusal(t, "a byte more", err, refusal.RequestInvalid)
	})
	file := b.signersFile(6, 2, next, b.keys[0], b.keys[2])
	got, err := apply("rotate", file)
	if err != nil || got.Version != 6 || got.Hash != before.Hash {
		t.Fatalf("applied %+v, %v", got, err)
	}
	e := b.last()
	if len(e.Credentials) != 2 || e.Facts["bundle_quorum"] != "2" || e.Facts["policy_version"] != "6" || !strings.Contains(e.Facts["bundle_key.1"]+e.Facts["bundle_key.2"], "mia") {
		t.Errorf("entry %+v", e)
	}
	check := func(h *bundled) {
		t.Helper()
		_, err := h.apply("old", h.sign(99, rules, h.keys[0], h.keys[1]))
		wantRefusal(t, "the old keys", err, refusal.BundleInvalid)
		n := NewBundle{RequestID: "again", Bundle: file}
		_, err = h.ApplyBundle(context.Background(), stamped("", n), n)
		wantRefusal(t, "the file again", err, refusal.BundleInvalid)
		_, err = h.apply("low", h.sign(6, rules, next...))
		wantRefusal(t, "a version that stands", err, refusal.PolicyVersionMoved)
	}
	check(b)
	b.restart()
	check(b)
	if _, err := b.apply("new", b.sign(7, rules, next...)); err != nil {
		t.Fatal(err)
	}
	now, err := b.Documents(look(b.org, b.root), b.org, nil)
	if err != nil || now.Version != 7 {
		t.Errorf("documents %+v, %v", now, err)
	}
}

// Where calls of the API set policies, no file names signers.
func TestSignersNeedABundleAuthority(t *testing.T) {
	b := newBundled(t)
	b.org = site.acme
	n := NewBundle{RequestID: "x", Bundle: b.signersFile(1, 1, b.keys[:1], b.keys[0])}
	_, err := b.ApplyBundle(context.Background(), stamped("", n), n)
	wantRefusal(t, "authority api", err, refusal.BundleInvalid)
}
