package main

import (
	"context"
	"time"

	"github.com/sigild/sigild/cmd/config"
)

// stirEvery is how often random bytes of the device are mixed into the kernel's.
const stirEvery = time.Hour

// stirHourly mixes random bytes of the device into the kernel's generator, at once
// and then every hour until ctx ends. That it fails is logged and stops nothing.
func (k *keeper) stirHourly(ctx context.Context, d config.Device) {
	for {
		if err := config.StirRandomness(ctx, d); err != nil && ctx.Err() == nil {
			k.log.Warn("the device's random bytes are not mixed into the kernel's", "error", err)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(stirEvery):
		}
	}
}
