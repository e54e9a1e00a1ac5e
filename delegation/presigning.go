package delegation

import (
	"github.com/sigild/sigild/chains"
	"github.com/sigild/sigild/signing"
	"github.com/sigild/sigild/vault"
)

// This file is the answer to signing.PresignAuthority.

var _ signing.PresignAuthority = (*Service)(nil)

// Presigning lists the delegations that may keep presignatures now.
func (s *Service) Presigning() (list []*signing.Presigning) {
	s.book.mu.RLock()
	var ids []string
	for id, d := range s.book.delegations {
		if w := s.book.wallets[d.Wallet]; w != nil && s.book.keys[w.Key].Presignatures {
			ids = append(ids, id)
		}
	}
	s.book.mu.RUnlock()
	for _, id := range ids {
		if p := s.PresigningOf(id); p != nil {
			list = append(list, p)
		}
	}
	return list
}

// PresigningOf is one of them: its key's settings want it, and it could sign now. A
// delegation whose shares need a device at each use keeps none: a presignature has
// copies of the shares, and would spare the device its say.
func (s *Service) PresigningOf(delegationID string) *signing.Presigning {
	st, err := s.Current(&signing.Standing{Delegation: delegationID})
	if err != nil || !st.ExpiresAt.IsZero() && !s.now().Before(st.ExpiresAt) {
		return nil
	}
	k := find(s.book, s.book.keys, st.Wallet.Key)
	if k == nil || !k.Presignatures || len(st.Elsewhere) > 0 || k.Scheme != chains.ECDSASecp256k1 {
		return nil
	}
	for _, id := range st.ShareIDs {
		if devices, err := s.vault.Parts(vault.TypeShare, id); err != nil || len(devices) > 0 {
			return nil
		}
	}
	return &signing.Presigning{Standing: st, RootSet: k.Root.ID}
}
