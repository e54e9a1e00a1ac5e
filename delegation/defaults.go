package delegation

import (
	"context"
	"fmt"
	"time"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/policy"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// DelegatedAccess is what an organization offers where nothing else is said. An
// organization that never set it leaves delegations to the owners of its wallets
// and proposes none; one that set Enabled to false has no new ones.
type DelegatedAccess struct {
	Enabled bool `json:"enabled"`
	// Automatic proposes a delegation for each wallet that becomes active.
	Automatic bool `json:"automatic,omitempty"`
	// DelegatedUser and Recipient are "" for no default.
	DelegatedUser string `json:"delegated_user,omitempty"`
	Recipient     string `json:"api_key_recipient,omitempty"`
	// Lifetime of a delegation from its approval on, in seconds; 0: until revoked.
	Lifetime uint32 `json:"lifetime_seconds,omitempty"`
	// ApproveWithin is how long a proposal waits, in seconds; 0: [approveWithin].
	ApproveWithin      uint32          `json:"approval_seconds,omitempty"`
	Policies           []policy.Policy `json:"policies,omitempty"`
	Limits             []policy.Limit  `json:"limits,omitempty"`
	OrganizationAllows bool            `json:"organization_allows,omitempty"`
}

// Bounds of the setting.
const (
	approveWithin  = 7 * 24 * time.Hour
	minApproval    = 60                 // seconds
	maxSettingTime = 366 * 24 * 60 * 60 // seconds
)

// approval is how long a proposal waits.
func (d *DelegatedAccess) approval() time.Duration {
	if d == nil || d.ApproveWithin == 0 {
		return approveWithin
	}
	return time.Duration(d.ApproveWithin) * time.Second
}

// NewDelegatedAccess replaces an organization's setting.
type NewDelegatedAccess struct {
	RequestID    string
	Organization string
	Access       DelegatedAccess
}

// DelegatedAccessSet answers SetDelegatedAccess.
type DelegatedAccessSet struct{}

// SetDelegatedAccess replaces the setting under the root quorum; pending
// delegations keep their terms. Durable on return.
func (s *Service) SetDelegatedAccess(ctx context.Context, a Actor, n NewDelegatedAccess) error {
	set := n.Access
	if set.Lifetime > maxSettingTime {
		return refusal.New(refusal.RequestInvalid, "lifetime_seconds must be 1 to %d", maxSettingTime).With("field", "lifetime_seconds")
	}
	if set.ApproveWithin != 0 && (set.ApproveWithin < minApproval || set.ApproveWithin > maxSettingTime) {
		return refusal.New(refusal.RequestInvalid, "approval_seconds must be %d to %d", minApproval, maxSettingTime).With("field", "approval_seconds")
	}
	if set.Recipient != "" {
		if err := checkRecipient("api_key_recipient", set.Recipient); err != nil {
			return err
		}
	}
	if set.hasRules() {
		// Compiled for nobody: ids are drawn anew for each delegation.
		if _, _, err := checkRules("dlg_default", NewDelegation{Policies: set.Policies, Limits: set.Limits, OrganizationAllows: set.OrganizationAllows}); err != nil {
			return err
		}
	}
	if set.Automatic && (!set.Enabled || set.DelegatedUser == "" || set.Recipient == "" || !set.hasRules()) {
		return refusal.New(refusal.RequestInvalid, "automatic needs enabled, a delegated user, a recipient and rules").With("field", "automatic")
	}
	authorize := func() error {
		if err := s.root(a, n.Organization); err != nil || len(set.Policies)+len(set.Limits) == 0 {
			return err
		}
		return s.byAPI(n.Organization)
	}
	_, err := act(ctx, s, a, n.Organization, n.RequestID, authorize, func(tx *vault.Tx, e *journal.Entry) (DelegatedAccessSet, error) {
		o, err := s.book.organization(n.Organization)
		if err != nil {
			return DelegatedAccessSet{}, err
		}
		if set.DelegatedUser != "" {
			if _, err := s.delegatedUser(n.Organization, set.DelegatedUser); err != nil {
				return DelegatedAccessSet{}, err
			}
		}
		changed := *o
		changed.Delegated = &set
		if err := store(tx, vault.TypeOrganization, o.ID, &changed); err != nil {
			return DelegatedAccessSet{}, err
		}
		s.book.change(tx, func() { s.book.organizations[o.ID] = &changed })
		e.Facts = map[string]string{
			"enabled": fmt.Sprint(set.Enabled), "automatic": fmt.Sprint(set.Automatic),
			"policies": fmt.Sprint(len(set.Policies)), "limits": fmt.Sprint(len(set.Limits)), "lifetime_seconds": fmt.Sprint(set.Lifetime),
		}
		return DelegatedAccessSet{}, nil
	})
	return err
}

func (d *DelegatedAccess) hasRules() bool {
	return len(d.Policies)+len(d.Limits) > 0 || d.OrganizationAllows
}

// DelegatedAccess shows the setting to a member; nil when it was never set.
func (s *Service) DelegatedAccess(a Actor, org string) (*DelegatedAccess, error) {
	if err := s.member(a, org); err != nil {
		return nil, err
	}
	o, err := s.book.organization(org)
	if err != nil {
		return nil, err
	}
	return o.Delegated, nil
}

// delegatedUser finds a user who may be delegated to.
func (s *Service) delegatedUser(org, id string) (*user, error) {
	u, err := s.book.user(org, id)
	if err != nil {
		return nil, err
	}
	if u.Kind != DelegatedUser {
		return nil, refusal.New(refusal.RequestInvalid, "delegated_user_id must name a delegated user").With("field", "delegated_user_id")
	}
	if u.Removed {
		return nil, refusal.New(refusal.NotActive, "the delegated user was removed")
	}
	return u, nil
}
