package agent

import (
	"context"
	"fmt"

	"castellan.dev/castellan/packages"
)

// StoreArchives gives archives of a store on this host; it fetches none from elsewhere.
type StoreArchives struct {
	Store *packages.Store
}

// Unpacked implements Archives.
func (s StoreArchives) Unpacked(ctx context.Context, digest string) (string, error) {
	d, err := packages.ParseDigest(digest)
	if err != nil {
		return "", fmt.Errorf("unpack a package: %w", err)
	}
	tree, err := s.Store.Unpack(ctx, d, nil)
	if err != nil {
		return "", fmt.Errorf("unpack package %s: %w", digest, err)
	}
	return tree.Dir, nil
}
