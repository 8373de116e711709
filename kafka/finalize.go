package kafka

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// FinalizeFeatures raises the finalized levels of features, all in one request or none
// (KIP-584 UpdateFeatures). There is no way back. Levels that are reached already are left
// out, so to repeat it is a success; a lower one than is finalized changes nothing.
//
// Kafka validates the request before it is made for good. A refusal is a [RefusedError] that
// names the feature where Kafka does.
func (c *Cluster) FinalizeFeatures(ctx context.Context, levels map[string]int16) error {
	if len(levels) == 0 {
		return nil
	}
	return c.use(ctx, func(ctx context.Context, conn *conn) error {
		b, err := conn.takerOfConfig(ctx, clusterWide) // brokers forward it, the active controller takes it itself
		if err != nil {
			return fmt.Errorf("finalize %s: %w", levelsText(levels), err)
		}
		missing, err := missingLevels(ctx, b, levels)
		if err != nil || len(missing) == 0 {
			return err
		}
		text := levelsText(missing)
		if err := updateFeatures(ctx, b, "check whether "+text+" can be finalized", missing, true); err != nil {
			return err
		}
		err = updateFeatures(ctx, b, "finalize "+text, missing, false)
		if _, no := errors.AsType[*RefusedError](err); no {
			// An answer that was lost makes the request come twice.
			if left, unread := missingLevels(ctx, b, missing); unread == nil && len(left) == 0 {
				return nil
			}
		}
		return err
	})
}

// missingLevels are those of levels that are above what is finalized.
func missingLevels(ctx context.Context, b *kgo.Broker, levels map[string]int16) (map[string]int16, error) {
	is, err := readFeatures(ctx, b)
	if err != nil {
		return nil, err
	}
	missing := maps.Clone(levels)
	maps.DeleteFunc(missing, func(name string, level int16) bool { return is.finalized[name] >= level })
	return missing, nil
}

func updateFeatures(ctx context.Context, b *kgo.Broker, doing string, levels map[string]int16, validateOnly bool) error {
	const upgrade = 1 // org.apache.kafka.clients.admin.FeatureUpdate.UpgradeType
	req := kmsg.NewPtrUpdateFeaturesRequest()
	req.TimeoutMillis, req.ValidateOnly = millisLeft(ctx), validateOnly
	for _, name := range slices.Sorted(maps.Keys(levels)) {
		one := kmsg.NewUpdateFeaturesRequestFeatureUpdate()
		one.Feature, one.MaxVersionLevel, one.UpgradeType = name, levels[name], upgrade
		req.FeatureUpdates = append(req.FeatureUpdates, one)
	}
	// Version 1, which knows a check, is in Kafka since 3.3; nothing older is a KRaft cluster of ours.
	resp, err := ask[*kmsg.UpdateFeaturesResponse](ctx, b, req)
	if err != nil {
		return fmt.Errorf("%s: %w", doing, err)
	}
	for _, r := range resp.Results { // versions before 2 only; 2 names the feature in its message
		if err := refused(doing+": feature "+r.Feature, r.ErrorCode, r.ErrorMessage); err != nil {
			return err
		}
	}
	return refused(doing, resp.ErrorCode, resp.ErrorMessage)
}

// levelsText reads like group.version 1, metadata.version 4.3-IV0.
func levelsText(levels map[string]int16) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(levels)) {
		level := fmt.Sprint(levels[name])
		if name == metadataVersionFeature {
			level = MetadataVersion(levels[name])
		}
		parts = append(parts, name+" "+level)
	}
	return strings.Join(parts, ", ")
}
