/*
 * Copyright The Castellan Authors.
 * SPDX-License-Identifier: Apache-2.0
 */
package dev.castellan.kafka;

import java.io.IOException;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledExecutorService;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.TimeoutException;

import javax.security.auth.callback.Callback;
import javax.security.auth.callback.UnsupportedCallbackException;
import javax.security.auth.login.AppConfigurationEntry;

import org.apache.kafka.common.security.auth.AuthenticateCallbackHandler;
import org.apache.kafka.common.security.oauthbearer.OAuthBearerValidatorCallbackHandler;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * Kafka's own validation of OAuth tokens, but that a broker also starts while the provider does not answer: Kafka's reads
 * the provider's keys once at its start and fails with them (3.9.2, 4.3.1). Until they are read every token is refused.
 *
 * <p>The file with the provider's CA (option ssl.truststore.location) is looked at all along; other content is taken up.
 */
public final class PatientOAuthCallbackHandler implements AuthenticateCallbackHandler {
    private static final Logger LOG = LoggerFactory.getLogger(PatientOAuthCallbackHandler.class);
    private static final String TRUST = "ssl.truststore.location";
    private static final long EVERY_S = 5;
    private static final long FIRST_S = 2;

    private Map<String, ?> configs;
    private String mechanism;
    private List<AppConfigurationEntry> entries;
    private PemFile trustFile;
    private PemFile.Content trust;
    private volatile OAuthBearerValidatorCallbackHandler inForce;
    private volatile String failure = "not tried yet";
    private int attempt;
    private boolean closed;
    private ScheduledExecutorService again;

    @Override
    public void configure(Map<String, ?> given, String saslMechanism, List<AppConfigurationEntry> jaas) {
        configs = given;
        mechanism = saslMechanism;
        entries = jaas;
        for (AppConfigurationEntry entry : jaas) {
            Object path = entry.getOptions().get(TRUST);
            if (path != null) {
                trustFile = new PemFile(path.toString());
            }
        }
        again = Executors.newSingleThreadScheduledExecutor(task -> {
            Thread thread = new Thread(task, "castellan-oauth-" + saslMechanism);
            thread.setDaemon(true);
            return thread;
        });
        Future<?> first = again.submit(this::look);
        again.scheduleWithFixedDelay(this::look, EVERY_S, EVERY_S, TimeUnit.SECONDS);
        try {
            // So that the first clients after a start are not refused, and a silent provider does not hold it up.
            first.get(FIRST_S, TimeUnit.SECONDS);
        } catch (ExecutionException | TimeoutException e) {
            LOG.debug("the first look for the keys of the OAuth provider", e);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    @Override
    public void handle(Callback[] callbacks) throws IOException, UnsupportedCallbackException {
        OAuthBearerValidatorCallbackHandler now = inForce;
        if (now == null) {
            throw new IOException("the keys of the OAuth provider are not known: " + failure);
        }
        now.handle(callbacks);
    }

    /** Makes a validator when there is none, or when the CA's file has changed. */
    private synchronized void look() {
        if (closed || inForce != null && trust(false)) {
            return;
        }
        OAuthBearerValidatorCallbackHandler next = new OAuthBearerValidatorCallbackHandler();
        try {
            trust(true);
            next.configure(configs, mechanism, numbered());
            OAuthBearerValidatorCallbackHandler old = inForce;
            inForce = next;
            failure = null;
            LOG.info("Tokens are validated with the keys of the OAuth provider");
            close(old);
        } catch (Exception e) {
            close(next);
            trust = null; // also what was just read is tried again
            String why = reason(e);
            if (!why.equals(failure)) {
                LOG.error("The keys of the OAuth provider cannot be read: {}. {}; tried again every {} s", why,
                    inForce == null ? "Every token is refused" : "Those read before stay in force", EVERY_S);
            }
            failure = why;
        }
    }

    /** Whether the CA's file is what was read; remembers it when told so. */
    private boolean trust(boolean take) {
        if (trustFile == null || trust != null && PemFile.untouched(trustFile, trust)) {
            return true;
        }
        try {
            PemFile.Content now = PemFile.read(trustFile);
            boolean same = trust != null && PemFile.sameBytes(trust, now);
            if (take || same) {
                trust = now;
            }
            return same;
        } catch (IOException e) {
            return true; // half replaced; the next look tells
        }
    }

    /**
     * Entries that differ from those of the attempt before: Kafka keeps what it read of a provider under configuration and
     * options, and hands out a failed one again.
     */
    private List<AppConfigurationEntry> numbered() {
        int n = attempt++;
        AppConfigurationEntry first = entries.get(0);
        Map<String, Object> options = new HashMap<>(first.getOptions());
        options.put("castellan_attempt", String.valueOf(n));
        return List.of(new AppConfigurationEntry(first.getLoginModuleName(), first.getControlFlag(), options));
    }

    private static String reason(Throwable e) {
        Throwable cause = e;
        while (cause.getCause() != null) {
            cause = cause.getCause();
        }
        return cause.toString();
    }

    private static void close(OAuthBearerValidatorCallbackHandler handler) {
        if (handler == null) {
            return;
        }
        try {
            handler.close();
        } catch (RuntimeException e) {
            LOG.debug("close a validator of OAuth tokens", e);
        }
    }

    @Override
    public void close() {
        if (again != null) {
            again.shutdownNow();
        }
        synchronized (this) {
            closed = true;
            close(inForce);
            inForce = null;
        }
    }
}
