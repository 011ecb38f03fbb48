// Encrypted ClientHello: keys out of PEM files (RFC 9934) for a server, configurations for a client.
package main

import (
	"crypto/ecdh"
	"crypto/ecdsa"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"strings"
)

func list(value string) []string {
	return strings.FieldsFunc(value, func(r rune) bool { return r == ',' })
}

// echKeys reads files of one private key and its configurations. Those of `current` are told to clients.
func echKeys(config *tls.Config, names []string, current bool) {
	for _, name := range names {
		contents, err := os.ReadFile(name)
		check(err)
		var private *ecdh.PrivateKey
		for block, rest := pem.Decode(contents); block != nil; block, rest = pem.Decode(rest) {
			if block.Type == "PRIVATE KEY" {
				parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
				check(err)
				switch key := parsed.(type) {
				case *ecdh.PrivateKey:
					private = key
				case *ecdsa.PrivateKey:
					private, err = key.ECDH()
					check(err)
				}
				continue
			}
			for entries := block.Bytes[2:]; len(entries) > 0; {
				size := 4 + int(entries[2])<<8 + int(entries[3])
				key := tls.EncryptedClientHelloKey{Config: entries[:size], PrivateKey: private.Bytes(), SendAsRetry: current}
				config.EncryptedClientHelloKeys = append(config.EncryptedClientHelloKeys, key)
				entries = entries[size:]
			}
		}
	}
}

// echConfigs has a client encrypt its ClientHello.
func echConfigs(config *tls.Config, value string) {
	if value == "" {
		return
	}
	contents, err := base64.StdEncoding.DecodeString(value)
	check(err)
	config.EncryptedClientHelloConfigList = contents
}

// rejected says what a server that rejected it wants to have used, if it did.
func rejected(err error) {
	var rejection *tls.ECHRejectionError
	if errors.As(err, &rejection) {
		fmt.Println("rejected", base64.StdEncoding.EncodeToString(rejection.RetryConfigList))
	}
}
