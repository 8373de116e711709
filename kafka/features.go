package kafka

import (
	"context"
	"fmt"

	"github.com/twmb/franz-go/pkg/kgo"
	"github.com/twmb/franz-go/pkg/kmsg"

	"castellan.dev/castellan/core/plan"
)

// metadataVersions names the levels of the feature metadata.version from level 1 on.
// Source: org.apache.kafka.server.common.MetadataVersion of 3.9.2 to 4.3.1, whose common part is equal
// (TestMetadataVersionsAreKafkas prints the enum and compares).
func metadataVersions() []string {
	return []string{
		"3.0-IV1", "3.1-IV0", "3.2-IV0",
		"3.3-IV0", "3.3-IV1", "3.3-IV2", "3.3-IV3",
		"3.4-IV0",
		"3.5-IV0", "3.5-IV1", "3.5-IV2",
		"3.6-IV0", "3.6-IV1", "3.6-IV2",
		"3.7-IV0", "3.7-IV1", "3.7-IV2", "3.7-IV3", "3.7-IV4",
		"3.8-IV0",
		"3.9-IV0",
		"4.0-IV0", "4.0-IV1", "4.0-IV2", "4.0-IV3",
		"4.1-IV0", "4.1-IV1",
		"4.2-IV0", "4.2-IV1",
		"4.3-IV0",
		"4.4-IV0",
	}
}

// MetadataVersion is the name of a level of metadata.version as Kafka writes it, for example 4.3-IV0.
// A level from the future is named by its number, which compares equal to no version.
func MetadataVersion(level int16) string {
	names := metadataVersions()
	if level < 1 || int(level) > len(names) {
		return fmt.Sprintf("unknown level %d", level)
	}
	return names[level-1]
}

const metadataVersionFeature = "metadata.version"

// features are levels by name.
type features struct {
	finalized map[string]int16
	// supported are the lowest and highest level that the one that answers supports.
	supported map[string][2]int16
}

// readFeatures asks for the features; b's answer may lag behind the quorum's by one record.
func readFeatures(ctx context.Context, b *kgo.Broker) (features, error) {
	req := kmsg.NewPtrApiVersionsRequest()
	req.ClientSoftwareName = "castellan"
	req.ClientSoftwareVersion = "1"
	resp, err := ask[*kmsg.ApiVersionsResponse](ctx, b, req)
	if err != nil {
		return features{}, err
	}
	if err := refused("read the finalized features", resp.ErrorCode, nil); err != nil {
		return features{}, err
	}
	if resp.FinalizedFeaturesEpoch < 0 {
		return features{}, fmt.Errorf("read the finalized features: the node has not read them itself yet")
	}
	read := features{
		finalized: make(map[string]int16, len(resp.FinalizedFeatures)), supported: make(map[string][2]int16, len(resp.SupportedFeatures)),
	}
	for _, f := range resp.FinalizedFeatures {
		read.finalized[f.Name] = f.MaxVersionLevel
	}
	for _, f := range resp.SupportedFeatures {
		read.supported[f.Name] = [2]int16{f.MinVersion, f.MaxVersion}
	}
	return read, nil
}

// describeFeatures fills in the features that b tells.
func describeFeatures(ctx context.Context, b *kgo.Broker, k *plan.Kafka) error {
	read, err := readFeatures(ctx, b)
	if err != nil {
		return err
	}
	k.Features, k.SupportedFeatures = read.finalized, read.supported
	k.MetadataVersion = MetadataVersion(read.finalized[metadataVersionFeature])
	return nil
}
