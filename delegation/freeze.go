package delegation

import (
	"errors"
	"fmt"
	"maps"

	"github.com/sigild/sigild/mpc"
	"github.com/sigild/sigild/vault"
)

// A party that breaks threshold ceremonies again and again may be after the other
// parties' shares: many attacks on such protocols learn a bit from each failure
// (CVE-2023-33242). So failures are counted per key and party, durably, and the
// third freezes the key: its wallets are paused by the appliance itself, until the
// organization's root quorum resumes them, which starts the count anew. Successes
// in between take nothing back. Silence is not counted: a broken network would
// freeze keys.

// maxFailures is how many failures of one party freeze a key.
const maxFailures = 3

// nobody stands for a failure whose culprit can't be named.
const nobody mpc.Party = "unknown"

// CountFailure counts a failed ceremony of a key against those who broke it, in
// the transaction that journals the failure. What nobody broke is not counted.
func (s *Service) CountFailure(tx *vault.Tx, keyID string, cause error) error {
	var e *mpc.Error
	if !errors.As(cause, &e) || !e.Broken() {
		return nil
	}
	k := find(s.book, s.book.keys, keyID)
	if k == nil {
		return fmt.Errorf("counting a failure: key %s is missing", keyID)
	}
	culprits := e.Culprits
	if len(culprits) == 0 {
		culprits = []mpc.Party{nobody}
	}
	counted, worst := *k, 0
	counted.Failures = maps.Clone(k.Failures)
	if counted.Failures == nil {
		counted.Failures = map[mpc.Party]int{}
	}
	for _, p := range culprits {
		counted.Failures[p]++
		worst = max(worst, counted.Failures[p])
	}
	if err := s.putKey(tx, &counted); err != nil {
		return err
	}
	if worst < maxFailures {
		return nil
	}
	s.log.Error("a key is frozen: its ceremonies were broken", "key", keyID, "failures", fmt.Sprint(counted.Failures))
	for _, w := range s.book.walletsOf(keyID) {
		p := &Pause{Level: LevelAppliance, Since: s.now().UTC(), Reason: fmt.Sprintf("frozen after %d broken ceremonies: %v", worst, counted.Failures)}
		if err := s.setPause(tx, Scope{Organization: w.Organization, Wallet: w.ID}, p); err != nil {
			return err
		}
	}
	return nil
}

// thaw forgets the failures of a wallet's key, when its pause ends.
func (s *Service) thaw(tx *vault.Tx, scope Scope) error {
	_, k, err := s.book.wallet(scope.Organization, scope.Wallet)
	if err != nil || k.Failures == nil {
		return err
	}
	thawed := *k
	thawed.Failures = nil
	return s.putKey(tx, &thawed)
}

func (s *Service) putKey(tx *vault.Tx, k *key) error {
	s.book.change(tx, func() { s.book.fileKey(k) })
	return store(tx, vault.TypeKey, k.ID, k)
}
