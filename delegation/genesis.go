package delegation

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/sigild/sigild/credential"
	"github.com/sigild/sigild/journal"
	"github.com/sigild/sigild/refusal"
	"github.com/sigild/sigild/vault"
)

// CheckpointRef is the fact of the genesis that names the device's checkpoint key, for
// whoever has the device and not the store's root key.
const CheckpointRef = "checkpoint_ref"

// CheckpointKey reads which of the device's keys signs the journal's checkpoints,
// so that the journal can be opened before everything else.
func CheckpointKey(ctx context.Context, v *vault.Vault) (string, error) {
	a := new(appliance)
	err := v.With(ctx, vault.TypeAppliance, applianceRecord, func(b []byte) error { return decodeRecord(b, a) })
	if errors.Is(err, vault.ErrNotFound) {
		return "", ErrNotInitialized
	}
	if err != nil {
		return "", fmt.Errorf("reading the appliance record: %w", err)
	}
	return a.CheckpointKey, nil
}

// Genesis writes the first journal entry and, in the same transaction, the
// appliance record: the appliance id, the operators and their quorum. It is
// called once, by sigilctl init, on a fresh vault, and refuses any other. cfg
// names the device's checkpoint key. Durable on return; the caller closes the journal.
func Genesis(ctx context.Context, v *vault.Vault, cfg journal.Config, operators []NewCredential, quorum int, now time.Time) (applianceID string, _ *journal.Journal, err error) {
	creds, err := register(credential.ForOperator, operators)
	if err != nil {
		return "", nil, err
	}
	if quorum < 1 || quorum > len(creds) {
		return "", nil, refusal.New(refusal.RequestInvalid, "the operators' quorum must be 1 to %d", len(creds)).With("field", "quorum")
	}
	a := &appliance{
		V: recordVersion, ID: newID("app"), CreatedAt: now.UTC(), Operators: creds, Quorum: quorum, CheckpointKey: string(cfg.CheckpointKey),
	}
	g := journal.Genesis{ApplianceID: a.ID, Facts: map[string]string{"quorum": strconv.Itoa(quorum), CheckpointRef: a.CheckpointKey}}
	for _, c := range creds {
		g.Operators = append(g.Operators, fmt.Sprintf("%s %x %s", c.Algorithm, c.PublicKey, c.Name))
	}
	j, err := journal.Create(ctx, v, cfg, g, func(tx *vault.Tx) error {
		return store(tx, vault.TypeAppliance, applianceRecord, a)
	})
	if err != nil {
		return "", nil, fmt.Errorf("writing the genesis entry: %w", err)
	}
	return a.ID, j, nil
}

// applianceRecord is the id of the only record of its type.
const applianceRecord = "self"
