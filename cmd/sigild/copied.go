package main

import (
	"context"
	"os"
	"os/signal"
	"syscall"
)

// dropAtCopy drops presignatures at every SIGUSR1, until ctx ends: a udev rule sends it
// when this machine goes on from a snapshot or is a copy of another.
func (k *keeper) dropAtCopy(ctx context.Context) error {
	copied := make(chan os.Signal, 1)
	signal.Notify(copied, syscall.SIGUSR1)
	defer signal.Stop(copied)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-copied:
		}
		k.mu.Lock()
		if k.open != nil {
			k.open.presignatures.Drop("the machine was copied or resumed")
		}
		k.mu.Unlock()
		k.log.Warn("told that this machine was copied or resumed from a snapshot")
	}
}
