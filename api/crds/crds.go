// Package crds holds the generated CustomResourceDefinitions of castellan.dev as YAML.
package crds

import "embed"

// Files are the definitions, one YAML document a file.
//
//go:embed *.yaml
var Files embed.FS
