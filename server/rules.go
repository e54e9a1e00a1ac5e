package server

import (
	"time"

	"github.com/holiman/uint256"
	"google.golang.org/protobuf/types/known/timestamppb"

	sigilv1 "github.com/sigild/sigild/api/sigil/v1"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
)

// Policies and limits of a delegation: from the wire and back.

func readPolicies(in []*sigilv1.Policy) ([]policy.Policy, error) {
	out := make([]policy.Policy, 0, len(in))
	for _, p := range in {
		var effect policy.Effect
		switch p.GetEffect() {
		case sigilv1.PolicyEffect_POLICY_EFFECT_ALLOW:
			effect = policy.Allow
		case sigilv1.PolicyEffect_POLICY_EFFECT_DENY:
			effect = policy.Deny
		default:
			return nil, refusal.New(refusal.RequestInvalid, "policy %q has no effect", p.GetName()).With("field", "effect")
		}
		one := policy.Policy{
			Name: p.GetName(), Effect: effect, Condition: p.GetCondition(), Consensus: p.GetConsensus(), Time: p.GetTime(), Lang: policy.LangSigild,
			OneTime: p.GetOneTime(), Replace: p.GetReplace(), RequesterAbstains: p.GetRequesterAbstains(),
		}
		if p.NotAfter != nil {
			if err := p.NotAfter.CheckValid(); err != nil || p.NotAfter.GetSeconds() < 0 {
				return nil, refusal.New(refusal.RequestInvalid, "policy %q: not_after is no time since 1970", p.GetName()).With("field", "not_after")
			}
			one.NotAfter = p.NotAfter.AsTime()
		}
		out = append(out, one)
	}
	return out, nil
}

func readLimits(in []*sigilv1.Limit) ([]policy.Limit, error) {
	out := make([]policy.Limit, 0, len(in))
	for _, l := range in {
		one := policy.Limit{
			Name: l.GetName(), Asset: l.GetAsset(), MaxCount: l.GetMaxCount(), AnyAmount: l.GetMaxAmount() == "" && l.MaxCount != nil,
			Window: time.Duration(l.GetWindowSeconds()) * time.Second, IncludeFees: l.GetIncludeFees(), Control: l.GetControl(),
		}
		if !one.AnyAmount {
			most, err := uint256.FromDecimal(l.GetMaxAmount())
			if err != nil || most.Dec() != l.GetMaxAmount() {
				return nil, refusal.New(refusal.RequestInvalid, "limit %q: max_amount is not a decimal number below 2^256", l.GetName()).With("field", "max_amount")
			}
			one.Max = *most
		}
		if l.MaxCount != nil && l.GetMaxCount() == 0 {
			return nil, refusal.New(refusal.RequestInvalid, "limit %q: max_count is 0; leave it out for any number", l.GetName()).With("field", "max_count")
		}
		if l.WindowSeconds != nil && l.GetWindowSeconds() == 0 {
			return nil, refusal.New(refusal.RequestInvalid, "limit %q: window_seconds is 0; leave it out for the whole life", l.GetName()).With("field", "window_seconds")
		}
		if l.GetPerDestination() {
			one.Per = policy.PerDestination
		}
		out = append(out, one)
	}
	return out, nil
}

func policyMessage(p policy.Policy) *sigilv1.Policy {
	m := &sigilv1.Policy{
		Name: p.Name, Effect: sigilv1.PolicyEffect_POLICY_EFFECT_DENY, Condition: said(p.Condition), Consensus: said(p.Consensus), Time: said(p.Time),
		OneTime: p.OneTime, Replace: p.Replace, RequesterAbstains: p.RequesterAbstains,
	}
	if p.Effect == policy.Allow {
		m.Effect = sigilv1.PolicyEffect_POLICY_EFFECT_ALLOW
	}
	if !p.NotAfter.IsZero() {
		m.NotAfter = timestamppb.New(p.NotAfter)
	}
	return m
}

func policyMessages(in []policy.Policy) (out []*sigilv1.Policy) {
	for _, p := range in {
		out = append(out, policyMessage(p))
	}
	return out
}

func limitMessages(in []policy.Limit) (out []*sigilv1.Limit) {
	for _, l := range in {
		out = append(out, limitMessage(l))
	}
	return out
}

func limitMessage(l policy.Limit) *sigilv1.Limit {
	m := &sigilv1.Limit{Name: l.Name, Asset: l.Asset, IncludeFees: l.IncludeFees, PerDestination: l.Per == policy.PerDestination, Control: l.Control}
	if !l.AnyAmount {
		m.MaxAmount = l.Max.Dec()
	}
	if l.MaxCount > 0 {
		m.MaxCount = &l.MaxCount
	}
	if l.Window > 0 {
		seconds := uint32(l.Window / time.Second)
		m.WindowSeconds = &seconds
	}
	return m
}

// said is absent for an empty text.
func said(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}
