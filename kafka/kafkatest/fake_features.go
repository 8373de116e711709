package kafkatest

import (
	"fmt"
	"maps"
	"slices"

	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kmsg"
)

// SetFeatures changes finalized levels as if somebody had finalized them.
func (f *Fake) SetFeatures(levels map[string]int16) {
	f.mu.Lock()
	defer f.mu.Unlock()
	maps.Copy(f.features, levels)
}

// Supported are the ranges of levels that the fake's nodes support, by feature.
func (f *Fake) Supported() map[string][2]int16 {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.supported)
}

// Checks says of each UpdateFeatures so far whether it asked for a check only.
func (f *Fake) Checks() []bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.checks)
}

// support takes over what kfake says that it supports.
func (f *Fake) support(own *kmsg.ApiVersionsResponse) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, s := range own.SupportedFeatures {
		f.supported[s.Name] = [2]int16{s.MinVersion, s.MaxVersion}
	}
	for _, s := range own.FinalizedFeatures {
		f.features[s.Name] = s.MaxVersionLevel
	}
}

// finalizedFeatures are those of kfake's with the levels of now.
func (f *Fake) finalizedFeatures() []kmsg.ApiVersionsResponseFinalizedFeature {
	f.mu.Lock()
	defer f.mu.Unlock()
	var out []kmsg.ApiVersionsResponseFinalizedFeature
	for _, name := range slices.Sorted(maps.Keys(f.features)) {
		one := kmsg.NewApiVersionsResponseFinalizedFeature()
		one.Name, one.MinVersionLevel, one.MaxVersionLevel = name, f.features[name], f.features[name]
		if one.MaxVersionLevel > 0 {
			out = append(out, one)
		}
	}
	return out
}

// updateFeatures takes all of the levels or none, with the words of
// org.apache.kafka.controller.FeatureControlManager. Version 2 has only one answer for all.
func (f *Fake) updateFeatures(r *kmsg.UpdateFeaturesRequest, node int32, controllers bool) kmsg.Response { //nolint:ireturn // what kfake takes
	f.mu.Lock()
	defer f.mu.Unlock()
	f.checks = append(f.checks, r.ValidateOnly)
	resp := kmsg.NewPtrUpdateFeaturesResponse()
	resp.Version = r.Version
	if controllers && node != f.quorum.Leader {
		resp.ErrorCode = kerr.NotController.Code
		return resp
	}
	for _, u := range r.FeatureUpdates {
		why := ""
		switch supported, known := f.supported[u.Feature]; {
		case !known:
			why = "Local controller does not support this feature."
		case u.MaxVersionLevel < supported[0] || u.MaxVersionLevel > supported[1]:
			why = fmt.Sprintf("Local controller %d only supports versions %d-%d", f.quorum.Leader, supported[0], supported[1])
		case u.UpgradeType != 1:
			why = "The fake knows upgrades only."
		case u.MaxVersionLevel < f.features[u.Feature]:
			why = "Can't downgrade the version of this feature without setting the upgrade type to either safe or unsafe downgrade."
		default:
			continue
		}
		text := fmt.Sprintf("Invalid update version %d for feature %s. %s", u.MaxVersionLevel, u.Feature, why)
		if r.Version >= 2 {
			resp.ErrorCode = kerr.InvalidUpdateVersion.Code
			resp.ErrorMessage = new("The update failed for all features since the following feature had an error: " + text)
			return resp
		}
		one := kmsg.NewUpdateFeaturesResponseResult()
		one.Feature, one.ErrorCode, one.ErrorMessage = u.Feature, kerr.InvalidUpdateVersion.Code, &text
		resp.Results = append(resp.Results, one)
	}
	if r.ValidateOnly || len(resp.Results) > 0 {
		return resp
	}
	for _, u := range r.FeatureUpdates {
		f.features[u.Feature] = u.MaxVersionLevel
	}
	return resp
}
