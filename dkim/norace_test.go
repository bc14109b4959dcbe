//go:build !race

package dkim

const raced = false
