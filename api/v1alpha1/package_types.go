package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Package is software that hosts run: a product, a version and where it comes from.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,shortName=kp,categories=castellan
// +kubebuilder:printcolumn:name="PRODUCT",type=string,JSONPath=`.spec.product`
// +kubebuilder:printcolumn:name="VERSION",type=string,JSONPath=`.spec.version`
// +kubebuilder:printcolumn:name="STATE",type=string,JSONPath=`.status.state`
// +kubebuilder:printcolumn:name="DIGEST",type=string,JSONPath=`.status.digest`
// +kubebuilder:printcolumn:name="MESSAGE",type=string,priority=1,JSONPath=`.status.message`
// +kubebuilder:printcolumn:name="AGE",type=date,JSONPath=`.metadata.creationTimestamp`
type Package struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	Spec   PackageSpec   `json:"spec"`
	Status PackageStatus `json:"status,omitempty"`
}

// PackageList is a list of Packages.
//
// +kubebuilder:object:root=true
type PackageList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Package `json:"items"`
}

// Product is what a package holds.
// +kubebuilder:validation:Enum=Kafka
type Product string

// The products.
const (
	ProductKafka Product = "Kafka"
)

// PackageSpec says where the bytes come from. It cannot change: make another Package.
//
// +kubebuilder:validation:XValidation:rule="self.product == oldSelf.product && self.version == oldSelf.version",message="product and version cannot change: make another Package"
type PackageSpec struct {
	Product Product `json:"product"`
	// +kubebuilder:validation:Pattern=`^\d+\.\d+\.\d+$`
	// +kubebuilder:validation:MaxLength=32
	Version string `json:"version"`
	// Sources are tried in order; every one is checked against its digest.
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +listType=atomic
	Sources []PackageSource `json:"sources"`
}

// PackageSource is a union: one place where the package can be had.
//
// +kubebuilder:validation:XValidation:rule="(has(self.url) ? 1 : 0) + (has(self.maven) ? 1 : 0) + (has(self.cache) ? 1 : 0) == 1",message="set exactly one of url, maven, cache"
// +kubebuilder:validation:XValidation:rule="!has(self.url) || has(self.sha512)",message="a url needs the sha512 that its publisher names"
type PackageSource struct {
	// URL of an archive (.tgz, .tar, .tar.zst): http, https, file or an absolute path.
	// +optional
	// +kubebuilder:validation:MaxLength=2048
	URL string `json:"url,omitempty"`
	// SHA512 of the archive in hex.
	// +optional
	// +kubebuilder:validation:Pattern=`^[0-9a-fA-F]{128}$`
	SHA512 string `json:"sha512,omitempty"`
	// Maven assembles the package from locked coordinates with the mvn client.
	// +optional
	Maven *MavenSource `json:"maven,omitempty"`
	// Cache is a folder with archives.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	Cache string `json:"cache,omitempty"`
}

// MavenSource is a set of Maven coordinates with a lock.
type MavenSource struct {
	// Lock is the name of a built-in lock (kafka-4.3.1) or the text of one.
	// +kubebuilder:validation:MaxLength=65536
	Lock string `json:"lock"`
}

// PackageState is how far a package is.
type PackageState string

// The states of a package.
const (
	PackageUnused   PackageState = "Unused"   // no cluster needs it yet
	PackageFetching PackageState = "Fetching" // on its way
	PackageReady    PackageState = "Ready"    // in the store
	PackageFailed   PackageState = "Failed"   // no source gave it: see message
)

// PackageStatus is how far the package is.
type PackageStatus struct {
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`
	// +optional
	State PackageState `json:"state,omitempty"`
	// Digest (sha256:<hex>) of the archive in the store.
	// +optional
	Digest string `json:"digest,omitempty"`
	// +optional
	Message string `json:"message,omitempty"`
}
