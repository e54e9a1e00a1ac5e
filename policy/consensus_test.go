package policy

import (
	"fmt"
	"testing"
)

func consentingSet(t *testing.T, abstains bool, consensus string) *Set {
	t.Helper()
	set, ds := Compile([]Policy{{ID: "p", Effect: Allow, Condition: "true", Consensus: consensus, RequesterAbstains: abstains}}, nil, nil)
	if set == nil {
		t.Fatal(ds)
	}
	return set
}

// people are users who approved, each with a credential, the first of whom asked.
func people(ids ...string) Request {
	var r Request
	for i, id := range ids {
		if i == 0 {
			r.Requester = id
		}
		r.Approvers = append(r.Approvers, User{ID: id, Tags: []string{"ops"}})
		r.Credentials = append(r.Credentials, Credential{ID: "c-" + id, UserID: id, Type: "CREDENTIAL_TYPE_API_KEY_P256"})
	}
	return r
}

// Who asks counts as the first approver, unless the policy says otherwise; then it
// does not count by a stamp either.
func TestRequesterAbstains(t *testing.T) {
	for _, row := range []struct {
		abstains  bool
		consensus string
		approved  []string
		want      Outcome
	}{
		{false, "approvers.count() >= 2", []string{"bot", "ann"}, Allowed},
		{true, "approvers.count() >= 2", []string{"bot", "ann"}, RequiresConsensus},
		{true, "approvers.count() >= 2", []string{"bot", "ann", "bea"}, Allowed},
		{true, "approvers.any(u, u.id == 'bot')", []string{"bot"}, RequiresConsensus},
		{false, "approvers.any(u, u.id == 'bot')", []string{"bot"}, Allowed},
		{true, "credentials.count() == 1", []string{"bot", "ann"}, Allowed},
		{false, "credentials.count() == 1", []string{"bot", "ann"}, RequiresConsensus},
	} {
		t.Run(fmt.Sprint(row.abstains, row.consensus, len(row.approved)), func(t *testing.T) {
			got := consentingSet(t, row.abstains, row.consensus).Evaluate(people(row.approved...))
			if got.Outcome != row.want {
				t.Errorf("%v (%s), want %v", got.Outcome, got.Reason, row.want)
			}
		})
	}
	plain, abstaining := consentingSet(t, false, "approvers.count() >= 2"), consentingSet(t, true, "approvers.count() >= 2")
	if plain.Hash() == abstaining.Hash() {
		t.Error("the switch does not show in the hash")
	}
}

func TestHeeds(t *testing.T) {
	ann := User{ID: "ann", Tags: []string{"sec"}}
	key := Credential{ID: "c-ann", UserID: "ann", Type: "CREDENTIAL_TYPE_API_KEY_P256"}
	for consensus, want := range map[string]bool{
		"approvers.count() >= 2":                                              true,
		"approvers.count() == 3":                                              true,
		"approvers.any(u, u.id == 'ann')":                                     true,
		"approvers.any(u, u.id == 'bea')":                                     false,
		"approvers.filter(u, u.tags.contains('sec')).count() >= 2":            true,
		"approvers.filter(u, u.tags.contains('ops')).count() >= 2":            false,
		"approvers.any(u, u.id == 'bea') && approvers.any(u, u.id == 'ann')":  true,
		"!approvers.any(u, u.id == 'ann')":                                    true,
		"credentials.any(c, c.type == 'CREDENTIAL_TYPE_API_KEY_P256')":        false, // bot's does already
		"credentials.filter(c, c.id == 'c-ann').count() > 0":                  true,
		"approvers.filter(u, u.id == 'ann' || u.id == 'bea').count() >= 2":    true,
		"approvers.count() >= 100":                                            false,
		"approvers.any(u, u.alias[0..3] == 'ann') || approvers.count() >= 99": false,
	} {
		if got := consentingSet(t, false, consensus).Heeds([]string{"p"}, people("bot"), ann, key); got != want {
			t.Errorf("%s: heeds ann: %v, want %v", consensus, got, want)
		}
	}
	set := consentingSet(t, false, "approvers.count() >= 3")
	if set.Heeds([]string{"p"}, people("bot", "ann"), ann, key) {
		t.Error("who has approved is heeded again")
	}
	if set.Heeds([]string{"other"}, people("bot"), ann, key) || set.Heeds(nil, people("bot"), ann, key) {
		t.Error("a policy that does not wait heeds somebody")
	}
}
