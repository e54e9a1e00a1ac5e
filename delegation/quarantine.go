package delegation

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/vault"
)

// A store that was restored from a backup has forgotten what happened since:
// revocations, ended credentials, charges. So every organization in it starts in
// quarantine, which is a pause of its own level: nothing of it signs until its root
// quorum has looked and resumes it. From then on limits count their windows as full
// until they reach back no further than the resumption: what was spent before it is
// not known. A limit without a window never holds again; who set it sets another.

// LevelRestore pauses organizations of a restored store; the root quorum resumes.
const LevelRestore Level = "restore"

// noteRestored writes the entry that tells of a restoration which forgot nothing that
// must not be undone; also runs in the same transaction.
func noteRestored(ctx context.Context, v *vault.Vault, j *journal.Journal, facts map[string]string, also func(*vault.Tx) error) error {
	err := v.UpdateAlone(ctx, func(tx *vault.Tx) error {
		if _, err := j.Append(tx, journal.Entry{Kind: journal.KindAct, Method: "restore", Outcome: "complete", Facts: facts, Urgent: true}); err != nil {
			return err
		}
		return also(tx)
	})
	if err != nil {
		return fmt.Errorf("noting that the store was restored: %w", err)
	}
	return nil
}

// quarantine pauses every organization of a store that is being restored, and
// writes the entry that tells of it: facts say what was restored. also runs in the
// same transaction. It returns how many organizations there are.
func quarantine(ctx context.Context, v *vault.Vault, j *journal.Journal, now time.Time, facts map[string]string, also func(*vault.Tx) error) (int, error) {
	b, err := loadBook(ctx, v)
	if err != nil {
		return 0, err
	}
	pause := &Pause{Level: LevelRestore, Since: now.UTC(), Reason: "restored from a backup"}
	err = v.UpdateAlone(ctx, func(tx *vault.Tx) error {
		for _, id := range slices.Sorted(maps.Keys(b.organizations)) {
			o := *b.organizations[id]
			o.Paused, o.CountsFrom = pause, nil
			if err := store(tx, vault.TypeOrganization, o.ID, &o); err != nil {
				return err
			}
		}
		if _, err := j.Append(tx, journal.Entry{Kind: journal.KindAct, Method: "restore", Outcome: "quarantined", Facts: facts}); err != nil {
			return err
		}
		return also(tx)
	})
	if err != nil {
		return 0, fmt.Errorf("putting the restored store in quarantine: %w", err)
	}
	return len(b.organizations), nil
}
