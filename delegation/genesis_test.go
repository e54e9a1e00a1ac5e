package delegation

import (
	"context"
	"errors"
	"path/filepath"
	"strings"
	"testing"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

func TestGenesis(t *testing.T) {
	ctx := context.Background()
	v, _, err := vault.Create(ctx, vault.Config{Dir: filepath.Join(t.TempDir(), "state"), Now: site.config.Now},
		vault.KeyHolder{Sealer: site.device, ID: site.device.ID(), Ref: site.kek})
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if _, err := CheckpointKey(ctx, v); !errors.Is(err, ErrNotInitialized) {
		t.Errorf("checkpoint key of a fresh vault: %v, want ErrNotInitialized", err)
	}
	if _, err := Open(ctx, Config{Vault: v}); !errors.Is(err, ErrNotInitialized) {
		t.Errorf("opening a fresh vault: %v, want ErrNotInitialized", err)
	}

	good := []NewCredential{newHolder(credential.ForOperator, "otto").NewCredential, newHolder(credential.ForOperator, "olga").NewCredential}
	with := func(c NewCredential) []NewCredential { return append(good[:1:1], c) }
	renamed, badProof, spaced := good[1], good[1], good[1]
	renamed.Name = "oleg"
	badProof.Proof = append([]byte{badProof.Proof[0] ^ 1}, badProof.Proof[1:]...)
	spaced.Name = "ol\nga"
	many := make([]NewCredential, maxCredentials+1)
	for i := range many {
		many[i] = newHolder(credential.ForOperator, "o").NewCredential
	}
	before := v.Info()
	for name, c := range map[string]struct {
		operators []NewCredential
		quorum    int
		field     string
	}{
		"quorum 0":                {good, 0, "quorum"},
		"quorum below":            {good, -1, "quorum"},
		"quorum above":            {good, 3, "quorum"},
		"no operators":            {nil, 0, "credentials"},
		"too many":                {many, 1, "credentials"},
		"the same twice":          {with(good[0]), 1, "credentials"},
		"a proof that is changed": {with(badProof), 1, "proof"},
		"no proof":                {with(NewCredential{Name: "olga", PublicKey: good[1].PublicKey}), 1, "proof"},
		"a proof of another name": {with(renamed), 1, "proof"},
		"another's proof":         {with(NewCredential{Name: "otto", PublicKey: good[1].PublicKey, Proof: good[0].Proof}), 1, "proof"},
		"a proof for a root":      {with(newHolder(credential.ForOrganizationRoot, "olga").NewCredential), 1, "proof"},
		"a name of two lines":     {with(spaced), 1, "credential name"},
	} {
		_, j, err := Genesis(ctx, v, site.config, c.operators, c.quorum, began)
		no := wantRefusal(t, name, err, refusal.RequestInvalid)
		if no.Details["field"] != c.field || j != nil {
			t.Errorf("%s: field %q, want %q", name, no.Details["field"], c.field)
		}
	}
	if after := v.Info(); after != before {
		t.Errorf("refused genesis changed the vault: %+v, was %+v", after, before)
	}

	id, j, err := Genesis(ctx, v, site.config, good, 2, began)
	if err != nil {
		t.Fatal(err)
	}
	if g := j.Genesis(); g.ApplianceID != id || len(g.Operators) != 2 || !strings.HasSuffix(g.Operators[0], " otto") || g.Facts["quorum"] != "2" {
		t.Errorf("genesis entry %+v does not name the appliance and its operators", g)
	}
	if key, err := CheckpointKey(ctx, v); err != nil || key != string(site.config.CheckpointKey) {
		t.Errorf("checkpoint key %q, %v, want %q", key, err, site.config.CheckpointKey)
	}
	if _, _, err := Genesis(ctx, v, site.config, good, 2, began); !errors.Is(err, journal.ErrHasGenesis) {
		t.Errorf("a second genesis: %v, want ErrHasGenesis", err)
	}
	s, err := Open(ctx, Config{Vault: v, Journal: j})
	if err != nil || s.ApplianceID() != id {
		t.Fatalf("appliance %v, %v, want %s", s, err, id)
	}
	s.Close()
}
