package server

import (
	"context"

	"github.com/lockstep-cache/lockstep"
)

// rowCache is the cache whose writes are noted, before they are made, with the request
// that makes them, so that who may have a copy is told. Those of a transaction are noted
// where it makes them (rows).
type rowCache struct {
	*lockstep.Cache[string, Value]
	tracking *tracking
}

// note begins the write of keys, or of all, under whatever the context is part of. Outside
// of a request it is a write by itself, which end ends.
func (c *rowCache) note(ctx context.Context, all bool, keys ...string) (end func(error)) {
	w, end := writingOf(ctx), func(error) {}
	if w == nil {
		w = &writing{tracking: c.tracking}
		end = func(err error) {
			if err != nil {
				w.fail(err)
			}
			w.finish()
		}
	}
	if all {
		w.beginAll()
	}
	for _, key := range keys {
		w.begin(key)
	}
	return end
}

func (c *rowCache) Set(ctx context.Context, key string, value Value, options ...lockstep.WriteOption) (lockstep.Version, error) {
	end := c.note(ctx, false, key)
	version, err := c.Cache.Set(ctx, key, value, options...)
	end(err)
	return version, err
}

func (c *rowCache) Delete(ctx context.Context, key string, options ...lockstep.WriteOption) (existed bool, err error) {
	end := c.note(ctx, false, key)
	existed, err = c.Cache.Delete(ctx, key, options...)
	end(err)
	return existed, err
}

func (c *rowCache) SetMany(ctx context.Context, values map[string]Value) error {
	keys := make([]string, 0, len(values))
	for key := range values {
		keys = append(keys, key)
	}
	end := c.note(ctx, false, keys...)
	err := c.Cache.SetMany(ctx, values)
	end(err)
	return err
}

func (c *rowCache) DeleteMany(ctx context.Context, keys []string) error {
	end := c.note(ctx, false, keys...)
	err := c.Cache.DeleteMany(ctx, keys)
	end(err)
	return err
}

func (c *rowCache) DeleteAll(ctx context.Context) error {
	end := c.note(ctx, true)
	err := c.Cache.DeleteAll(ctx)
	end(err)
	return err
}

func (c *rowCache) Update(ctx context.Context, key string, f func(old Value, exists bool) (Value, error), options ...lockstep.WriteOption) (Value, error) {
	end := c.note(ctx, false, key)
	value, err := c.Cache.Update(ctx, key, f, options...)
	end(err)
	return value, err
}
