package policy

import (
	"slices"
	"strings"
)

// What a consensus makes of people. A decision asks whether enough approved; who
// shows an activity to people asks earlier, whose approval it would heed at all.

// abstaining is f for a policy whose requester abstains: a frame of its own, in which
// the requester is no approver.
func (f *frame) abstaining() *frame {
	req := *f.req
	if req.Requester != "" {
		req.Approvers = slices.DeleteFunc(slices.Clone(req.Approvers), func(u User) bool { return u.ID == req.Requester })
		req.Credentials = slices.DeleteFunc(slices.Clone(req.Credentials), func(c Credential) bool { return c.UserID == req.Requester })
	}
	return &frame{req: &req, schema: f.schema, native: f.native, partial: f.partial, steps: f.steps}
}

// mostApprovals is how many approvals a consensus is tried with to see whether it
// heeds somebody; a rule that counts further is taken not to.
const mostApprovals = 16

// Heeds reports whether an approval by u, given with c, could change what the
// consensus of one of the policies says, beside those that req has already: whether
// any part of it comes out otherwise when u approves once, or when further people
// like u do, up to 16. Of req only Approvers, Credentials and Requester are looked at.
// It is for deciding who may see and judge an activity, never for allowing one.
func (s *Set) Heeds(policies []string, req Request, u User, c Credential) bool {
	if s == nil || slices.ContainsFunc(req.Approvers, func(have User) bool { return have.ID == u.ID }) {
		return false
	}
	for _, id := range policies {
		at, ok := slices.BinarySearchFunc(s.policies, id, func(c compiled, id string) int { return strings.Compare(c.policy.ID, id) })
		if ok && s.policies[at].heeds(s.schema, req, u, c) {
			return true
		}
	}
	return false
}

func (c *compiled) heeds(schema *Schema, req Request, u User, with Credential) bool {
	before := c.consents(schema, req)
	req.Approvers, req.Credentials = slices.Clone(req.Approvers), slices.Clone(req.Credentials)
	for range mostApprovals {
		req.Approvers, req.Credentials = append(req.Approvers, u), append(req.Credentials, with)
		if !slices.Equal(before, c.consents(schema, req)) {
			return true
		}
	}
	return false
}

// consents says of each part of the consensus whether it holds; what can't be
// evaluated does not.
func (c *compiled) consents(schema *Schema, req Request) []bool {
	f := &frame{req: &req, schema: schema, native: c.policy.lang() == LangSigild, partial: c.policy.PartialLists, steps: policySteps}
	if c.policy.RequesterAbstains {
		f = f.abstaining()
	}
	out := make([]bool, len(c.consensus.parts))
	for i := range c.consensus.parts {
		holds, err := f.judge(c.consensus.parts[i].part)
		out[i] = holds && err == nil
	}
	return out
}
