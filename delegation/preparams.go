package delegation

import (
	"context"
	"fmt"
	"sync"

	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/vault"
)

// PreParamStore keeps the pool of pre-parameters as sealed records. Taking one
// deletes it durably first: none is ever used twice, a crash loses at most one.
type PreParamStore struct {
	vault *vault.Vault
	mu    sync.Mutex // guards ids
	ids   []string
}

var _ mpc.PoolStore = (*PreParamStore)(nil)

// NewPreParamStore lists what the vault holds.
func NewPreParamStore(ctx context.Context, v *vault.Vault) (*PreParamStore, error) {
	s := &PreParamStore{vault: v}
	err := v.Each(ctx, vault.TypePreParams, func(id string, _ []byte) error {
		s.ids = append(s.ids, id)
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("listing pre-parameters: %w", err)
	}
	return s, nil
}

// Put seals one set; durable on return.
func (s *PreParamStore) Put(ctx context.Context, encoded []byte) error {
	id := newID("pre")
	err := s.vault.Update(ctx, func(tx *vault.Tx) error {
		tx.OnCommit(func() {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.ids = append(s.ids, id)
		})
		return tx.Put(vault.TypePreParams, id, encoded)
	})
	if err != nil {
		return fmt.Errorf("storing pre-parameters: %w", err)
	}
	return nil
}

// Take removes one set durably and hands its bytes to the caller, who wipes them.
func (s *PreParamStore) Take(ctx context.Context) ([]byte, error) {
	s.mu.Lock()
	if len(s.ids) == 0 {
		s.mu.Unlock()
		return nil, mpc.ErrEmpty
	}
	id := s.ids[0]
	s.ids = s.ids[1:]
	s.mu.Unlock()
	var out []byte
	err := s.vault.Update(ctx, func(tx *vault.Tx) error {
		err := tx.With(vault.TypePreParams, id, func(encoded []byte) error {
			out = append([]byte(nil), encoded...)
			return nil
		})
		if err != nil {
			return err
		}
		return tx.Delete(vault.TypePreParams, id)
	})
	if err != nil {
		clear(out)
		s.mu.Lock() // still there, or never to be had: others go first
		s.ids = append(s.ids, id)
		s.mu.Unlock()
		return nil, fmt.Errorf("taking pre-parameters: %w", err)
	}
	return out, nil
}

// Count is how many sets are ready.
func (s *PreParamStore) Count(context.Context) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return len(s.ids), nil
}
