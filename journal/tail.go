package journal

import (
	"context"
	"crypto/ecdsa"
	"errors"
	"fmt"
	"time"

	"github.com/sigild/sigild/vault"
)

// Follow is [Walk] that does not end: it verifies the journal and shows it, then looks
// every now and then whether there is more, and verifies and shows that, until ctx
// ends, whose error it returns. A journal that is shorter than what was shown, or
// continues another, is a [*VerifyError].
func Follow(ctx context.Context, path string, pub *ecdsa.PublicKey, every time.Duration, visit func(Entry) error) error {
	w := &walker{pub: pub}
	_, err := walkFile(ctx, path, w, func(_ vault.JournalHead, _ vault.JournalRow, e Entry) error { return visit(e) })
	for err == nil {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(every):
		}
		err = more(ctx, path, w, visit)
	}
	return err
}

// more shows what came since w's last row.
func more(ctx context.Context, path string, w *walker, visit func(Entry) error) error {
	f, err := vault.OpenFile(ctx, path)
	if err != nil {
		return fmt.Errorf("following the journal: %w", err)
	}
	head := f.JournalHead()
	if f.StoreID() != w.storeID {
		return errors.Join(&VerifyError{Reason: "the file is another store's now"}, f.Close())
	}
	err = f.JournalRows(ctx, w.last.Seq+1, 0, func(row vault.JournalRow) error {
		e, err := w.step(row)
		if err != nil {
			return err
		}
		return visit(e)
	})
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	if w.last != head {
		return &VerifyError{Seq: w.last.Seq, Reason: fmt.Sprintf("it was there, and now the vault's head names entry %d, or another, as the last", head.Seq)}
	}
	return nil
}
