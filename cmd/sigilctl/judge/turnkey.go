package judge

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/sigild/sigild/policy"
)

// turnkeyPolicy is a policy as Turnkey's list_policies answers it
// (docs.turnkey.com, API reference, List policies). What it says about itself
// (organization, notes, times of change) has no place in ours and is left out.
type turnkeyPolicy struct {
	ID         string        `json:"policyId"`
	Name       string        `json:"policyName"`
	Effect     policy.Effect `json:"effect"`
	Condition  string        `json:"condition"`
	Consensus  string        `json:"consensus"`
	Time       string        `json:"time"`
	CreateName string        `json:"name"` // in older exports
}

// ImportTurnkey reads {"policies":[…]} as Turnkey lists them, or the list alone, and
// makes policies of lang turnkey of them, in order. It changes no text: what means
// something else here, or nothing, is for [File.Report] to tell, and for the table
// of departures in docs/policy.md.
func ImportTurnkey(r io.Reader) (File, error) {
	text, err := io.ReadAll(io.LimitReader(r, MaxFile+1))
	if err != nil {
		return File{}, fmt.Errorf("reading Turnkey's policies: %w", err)
	}
	if len(text) > MaxFile {
		return File{}, fmt.Errorf("reading Turnkey's policies: more than %d bytes", MaxFile)
	}
	var list []turnkeyPolicy
	if err := json.Unmarshal(text, &list); err != nil {
		var listed struct {
			Policies *[]turnkeyPolicy `json:"policies"`
		}
		if e := json.Unmarshal(text, &listed); e != nil {
			return File{}, fmt.Errorf("reading Turnkey's policies: %w", e)
		}
		if listed.Policies == nil {
			return File{}, errors.New(`reading Turnkey's policies: no member "policies"`)
		}
		list = *listed.Policies
	}
	var f File
	for i, t := range list {
		if t.ID == "" {
			return File{}, fmt.Errorf("reading Turnkey's policies: policy %d has no policyId", i)
		}
		name := t.Name
		if name == "" {
			name = t.CreateName
		}
		f.Policies = append(f.Policies, policy.Policy{ID: t.ID, Name: name, Effect: t.Effect,
			Condition: t.Condition, Consensus: t.Consensus, Time: t.Time, Lang: policy.LangTurnkey})
	}
	return f, nil
}
