/*
 * Copyright The Castellan Authors.
 * SPDX-License-Identifier: Apache-2.0
 */
package dev.castellan.kafka;

import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.security.GeneralSecurityException;
import java.security.Key;
import java.security.KeyStore;
import java.security.PrivateKey;
import java.security.Signature;
import java.security.cert.Certificate;
import java.security.cert.X509Certificate;
import java.util.Collections;
import java.util.HashMap;
import java.util.Map;
import java.util.Objects;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.Stream;

import javax.net.ssl.SSLEngine;

import org.apache.kafka.common.KafkaException;
import org.apache.kafka.common.config.ConfigException;
import org.apache.kafka.common.config.SslConfigs;
import org.apache.kafka.common.config.types.Password;
import org.apache.kafka.common.security.auth.SslEngineFactory;
import org.apache.kafka.common.security.ssl.DefaultSslEngineFactory;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Gives each new connection the key, chain and trusted CAs that stand in the PEM files at that moment.
 *
 * <p>Kafka re-reads its stores only where it registers a listener for dynamic configuration; its Raft client registers
 * none and keeps the certificates of the process start (measured on 4.3.1). This factory looks at its files whenever an
 * engine is asked for, wherever Kafka asks, and leaves everything else to Kafka's own {@link DefaultSslEngineFactory}: a
 * new one is made when the content changed, and only then.
 *
 * <p>Files that cannot be used (missing, half-written, a key that does not belong to its certificate) leave the last good
 * ones in force, and the log says so once. Only at {@link #configure} do they fail the caller. It never writes, never
 * touches connections that exist, and starts no thread.
 */
public final class ReloadingSslEngineFactory implements SslEngineFactory {
    private static final Logger LOG = LoggerFactory.getLogger(ReloadingSslEngineFactory.class);

    private Map<String, Object> configs;
    private PemFile keyFile;
    private PemFile trustFile;
    private Password keyPassword;
    private volatile Stores inForce;
    private String complaint; // which bad content was complained about; null while the files are good; guarded by this

    /** What the files held at one moment, and the factory made from it. */
    private static final class Stores {
        final PemFile.Content key;
        final PemFile.Content trust;
        final DefaultSslEngineFactory engines;

        Stores(PemFile.Content key, PemFile.Content trust, DefaultSslEngineFactory engines) {
            this.key = key;
            this.trust = trust;
            this.engines = engines;
        }

        boolean sameBytes(PemFile.Content otherKey, PemFile.Content otherTrust) {
            return PemFile.sameBytes(key, otherKey) && PemFile.sameBytes(trust, otherTrust);
        }
    }

    @Override
    public void configure(Map<String, ?> given) {
        configs = Collections.unmodifiableMap(new HashMap<>(given));
        keyFile = pemFile(SslConfigs.SSL_KEYSTORE_LOCATION_CONFIG, SslConfigs.SSL_KEYSTORE_TYPE_CONFIG);
        trustFile = pemFile(SslConfigs.SSL_TRUSTSTORE_LOCATION_CONFIG, SslConfigs.SSL_TRUSTSTORE_TYPE_CONFIG);
        keyPassword = (Password) configs.get(SslConfigs.SSL_KEY_PASSWORD_CONFIG);
        try {
            inForce = load(PemFile.read(keyFile), PemFile.read(trustFile));
        } catch (IOException | GeneralSecurityException | KafkaException e) {
            throw new KafkaException("load TLS files " + reason(e), e);
        }
    }

    @Override
    public SSLEngine createClientSslEngine(String peerHost, int peerPort, String endpointIdentification) {
        return current().engines.createClientSslEngine(peerHost, peerPort, endpointIdentification);
    }

    @Override
    public SSLEngine createServerSslEngine(String peerHost, int peerPort) {
        return current().engines.createServerSslEngine(peerHost, peerPort);
    }

    /**
     * True if the configuration differs, or if the files cannot be used: Kafka then makes a factory from them, fails, and
     * tells why. Usable new files are simply taken in, so that a reconfiguration has nothing to do twice.
     */
    @Override
    public boolean shouldBeRebuilt(Map<String, Object> nextConfigs) {
        if (!configs.equals(nextConfigs)) {
            return true;
        }
        current();
        synchronized (this) {
            return complaint != null;
        }
    }

    @Override
    public Set<String> reconfigurableConfigs() {
        return SslConfigs.RECONFIGURABLE_CONFIGS;
    }

    @Override
    public KeyStore keystore() {
        return current().engines.keystore();
    }

    @Override
    public KeyStore truststore() {
        return current().engines.truststore();
    }

    /** Does nothing: a connection being accepted on another thread may still ask for its engine. */
    @Override
    public void close() {
    }

    private PemFile pemFile(String locationKey, String typeKey) {
        String location = (String) configs.get(locationKey);
        if (location == null) {
            return null;
        }
        Object type = configs.get(typeKey);
        if (!DefaultSslEngineFactory.PEM_TYPE.equals(type)) {
            throw new ConfigException(typeKey, type, "must be PEM, the only type " + getClass().getName() + " reads");
        }
        return new PemFile(location);
    }

    private Stores current() {
        Stores now = inForce;
        if (PemFile.untouched(keyFile, now.key) && PemFile.untouched(trustFile, now.trust)) {
            return now;
        }
        return reload();
    }

    private synchronized Stores reload() {
        Stores now = inForce;
        String attempt = "unreadable";
        try {
            PemFile.Content key = PemFile.read(keyFile);
            PemFile.Content trust = PemFile.read(trustFile);
            if (now.sameBytes(key, trust)) {
                // Remember the new stamps, so that the next connection need not read again.
                inForce = new Stores(key, trust, now.engines);
                complaint = null;
                return inForce;
            }
            attempt = PemFile.digest(key) + PemFile.digest(trust);
            if (attempt.equals(complaint)) {
                return now;
            }
            inForce = load(key, trust);
            complaint = null;
            LOG.info("TLS files changed, new connections use {}", describe(inForce.engines));
        } catch (IOException | GeneralSecurityException | RuntimeException e) {
            complain(attempt, e);
        }
        return inForce;
    }

    private void complain(String attempt, Exception e) {
        if (!attempt.equals(complaint)) {
            complaint = attempt;
            LOG.error("TLS files changed but cannot be used: {}. New connections keep {}", reason(e), describe(inForce.engines));
        }
    }

    /** Names the files and the innermost cause: Kafka's outer ones say only that something is invalid. */
    private String reason(Throwable e) {
        Throwable cause = e;
        while (cause.getCause() != null) {
            cause = cause.getCause();
        }
        String files = Stream.of(keyFile, trustFile).filter(Objects::nonNull).map(PemFile::toString).collect(Collectors.joining(", "));
        return files + ": " + cause;
    }

    /** Hands the bytes over inline: what was digested is what is used, whatever happens to the files meanwhile. */
    private Stores load(PemFile.Content key, PemFile.Content trust) throws GeneralSecurityException {
        Map<String, Object> inline = new HashMap<>(configs);
        if (key != null) {
            inline.remove(SslConfigs.SSL_KEYSTORE_LOCATION_CONFIG);
            inline.put(SslConfigs.SSL_KEYSTORE_KEY_CONFIG, key.text());
            inline.put(SslConfigs.SSL_KEYSTORE_CERTIFICATE_CHAIN_CONFIG, key.text());
        }
        if (trust != null) {
            inline.remove(SslConfigs.SSL_TRUSTSTORE_LOCATION_CONFIG);
            inline.put(SslConfigs.SSL_TRUSTSTORE_CERTIFICATES_CONFIG, trust.text());
        }
        DefaultSslEngineFactory engines = new DefaultSslEngineFactory();
        engines.configure(inline);
        requireMatchingPair(engines.keystore());
        return new Stores(key, trust, engines);
    }

    /** Kafka takes any key with any certificate and fails in every later handshake instead. */
    private void requireMatchingPair(KeyStore store) throws GeneralSecurityException {
        if (store == null) {
            return;
        }
        String alias = store.aliases().nextElement();
        char[] password = keyPassword == null ? null : keyPassword.value().toCharArray();
        Key key = store.getKey(alias, password);
        Certificate leaf = store.getCertificate(alias);
        String algorithm = "SHA256with" + ("EC".equals(key.getAlgorithm()) ? "ECDSA" : key.getAlgorithm());
        if (!key.getAlgorithm().equals(leaf.getPublicKey().getAlgorithm())) {
            throw new GeneralSecurityException("private key and certificate are of different kinds");
        }
        byte[] probe = "castellan".getBytes(StandardCharsets.US_ASCII);
        Signature signer = Signature.getInstance(algorithm);
        signer.initSign((PrivateKey) key);
        signer.update(probe);
        byte[] signature = signer.sign();
        Signature verifier = Signature.getInstance(algorithm);
        verifier.initVerify(leaf);
        verifier.update(probe);
        if (!verifier.verify(signature)) {
            throw new GeneralSecurityException("private key does not belong to the first certificate of the file");
        }
    }

    private static String describe(DefaultSslEngineFactory engines) {
        try {
            KeyStore keys = engines.keystore();
            KeyStore trust = engines.truststore();
            String leaf = keys == null ? "no certificate"
                : name((X509Certificate) keys.getCertificate(keys.aliases().nextElement()));
            return leaf + ", " + (trust == null ? "the JVM's trusted CAs" : trust.size() + " trusted CAs");
        } catch (GeneralSecurityException e) {
            return "certificates that cannot be listed (" + e.getMessage() + ")";
        }
    }

    private static String name(X509Certificate leaf) {
        return "certificate " + leaf.getSerialNumber().toString(16) + " of " + leaf.getSubjectX500Principal()
            + " from " + leaf.getIssuerX500Principal() + " until " + leaf.getNotAfter().toInstant();
    }
}
