// Verifies Sigstore bundles with Sigstore's own verifier and a plain public key.
// Reads a JSON array of {bundle, key} (bundle as an object, key as PEM) from standard input and prints a JSON
// array with null for each bundle that is accepted, and the reason for each that is refused.
import { createPublicKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { bundleFromJSON } from "@sigstore/bundle";
import { toSignedEntity, toTrustMaterial, Verifier } from "@sigstore/verify";

const NO_AUTHORITIES = { certificateAuthorities: [], timestampAuthorities: [], tlogs: [], ctlogs: [] };
const NO_LOGS = { ctlogThreshold: 0, tlogThreshold: 0, tsaThreshold: 0, timestampThreshold: 0 };

function refusal({ bundle, key }) {
  try {
    const publicKey = { publicKey: createPublicKey(key), validFor: () => true };
    const trust = toTrustMaterial(NO_AUTHORITIES, () => publicKey);
    new Verifier(trust, NO_LOGS).verify(toSignedEntity(bundleFromJSON(bundle)));
    return null;
  } catch (error) {
    return `${error.code ?? error.name}: ${error.message}`;
  }
}

const cases = JSON.parse(readFileSync(0, "utf8"));
process.stdout.write(JSON.stringify(cases.map(refusal)));
