"""``ecology gate``, ``breed``, ``sign`` and ``verify``: what is done with adapter folders."""

from __future__ import annotations

import argparse
from pathlib import Path

from ecology.cli.grammar import DEFAULT_BASE, Command, doors, instant_of, whole
from ecology.errors import EXIT_OK, EXIT_REFUSED


def adapter_commands(command: Command) -> None:
    """Adds the four."""
    gate = command("gate", "judge adapters under a policy: may this go to production?", _gate)
    gate.add_argument("adapters", nargs="+", metavar="ADAPTER", type=Path, help="a PEFT adapter folder")
    gate.add_argument("--policy", default="release", metavar="FILE", help="a policy file, or the name of a shipped one")
    gate.add_argument(
        "--base", default=DEFAULT_BASE, metavar="NAME", help="a preset of conf/base (default: smollm2-135m)"
    )
    gate.add_argument("--static", action="store_true", help="only what needs no model; admits to nothing")
    gate.add_argument("--format", default="text", choices=["text", "json", "junit", "sarif", "github"])
    gate.add_argument(
        "--out", metavar="DIR", type=Path, help="also write verdicts, signed attestations, JUnit and SARIF here"
    )
    gate.add_argument("--since", default="", metavar="REV", help="only adapters that changed since this Git revision")
    gate.add_argument("--at", default="", metavar="INSTANT", help="waivers and approvals as of this instant")
    gate.add_argument("--evaluator", default="standard", metavar="NAME", help="a preset of conf/evaluator")
    gate.add_argument("--alias", default="champion", metavar="NAME", help="names whom it is compared with")
    gate.add_argument("--fresh", action="store_true", help="measure again what was measured before")

    breed = command("breed", "one operator: adapters in, adapter out, no base model loaded", _breed)
    breed.add_argument("operator", metavar="OPERATOR", help="linear, svd, ties, dare, slerp, crossover, mutate, ...")
    breed.add_argument("parents", nargs="+", metavar="PARENT", help="adapter folders, then options as key=value")
    target = breed.add_mutually_exclusive_group(required=True)
    target.add_argument("--out", metavar="DIR", type=Path, help="folder of the child")
    target.add_argument(
        "--dry-run", action="store_true", help="say what would be bred and what it keeps; write nothing"
    )
    breed.add_argument(
        "--base", default=DEFAULT_BASE, metavar="NAME", help="a preset of conf/base (default: smollm2-135m)"
    )
    breed.add_argument("--seed", type=whole("seed"), default=0, metavar="N", help="of its own draws (default: 0)")
    breed.add_argument("--policy", metavar="FILE", help="whose limits of reproduction apply")
    _signing(command)


def _signing(command: Command) -> None:
    sign = command("sign", "sign an adapter's bytes into its claims.jsonl", _sign)
    sign.add_argument("adapter", metavar="ADAPTER", type=Path)
    how = sign.add_mutually_exclusive_group()
    how.add_argument("--key", metavar="FILE", help="PEM private key, or a URI that securesystemslib knows (awskms:...)")
    how.add_argument("--keyless", action="store_true", help="sign as the CI job or the person that this is (Sigstore)")
    sign.add_argument("--public-key", metavar="FILE", type=Path, help="the public half of a key behind a URI")
    sign.add_argument("--trust-config", metavar="FILE", type=Path, help="a private Sigstore instance (with --keyless)")
    sign.add_argument("--identity-token", metavar="TOKEN", help="instead of the CI's own or a browser (with --keyless)")
    sign.add_argument("--oms", metavar="FILE", type=Path, help="also write an OpenSSF Model Signing bundle")

    verify = command("verify", "check an adapter's claims against a trust anchor", _verify)
    verify.add_argument("adapter", metavar="ARTIFACT", help="an adapter; with --bundle any file, or sha256:DIGEST")
    verify.add_argument("--policy", metavar="FILE", help="trust whom this policy trusts")
    verify.add_argument("--key", metavar="FILE", type=Path, help="trust this PEM public key")
    what = verify.add_mutually_exclusive_group()
    what.add_argument("--bundle", metavar="FILE", type=Path, help="a Sigstore bundle, verified offline")
    what.add_argument("--oms", metavar="FILE", type=Path, help="an OpenSSF Model Signing bundle over the whole folder")
    verify.add_argument("--trusted-root", metavar="FILE", type=Path, help="trusted_root.json of the Sigstore instance")
    verify.add_argument("--identity", metavar="ID", help="who must have signed: exactly the certificate's name")
    verify.add_argument("--issuer", metavar="URL", help="who must vouch for the identity: exactly the OIDC issuer")


def _gate(options: argparse.Namespace) -> int:
    from ecology.pipeline.desk import Asked  # noqa: PLC0415
    from ecology.pipeline.gating import gate  # noqa: PLC0415

    want = Asked(
        policy=options.policy,
        base=options.base,
        static=options.static,
        form=options.format,
        out=options.out,
        since=options.since,
        at=instant_of(options) if options.at else "",
        evaluator=options.evaluator,
        alias=options.alias,
        fresh=options.fresh,
    )
    return gate(options.adapters, want, doors(options))


def _breed(options: argparse.Namespace) -> int:
    from ecology.pipeline.breeding import breed_folders, rehearse, told  # noqa: PLC0415

    folders = [text for text in options.parents if "=" not in text or Path(text).is_dir()]
    given = [text for text in options.parents if text not in folders]
    house = doors(options)
    paths, base, seed = [Path(f) for f in folders], options.base, options.seed
    if options.dry_run:
        bred = rehearse(options.operator, paths, given, base=base, seed=seed, house=house, policy=options.policy)
        print(f"would be {bred.artifact.digest}")
    else:
        bred = breed_folders(
            options.operator, paths, given, out=options.out, base=base, seed=seed, house=house, policy=options.policy
        )
        print(f"{bred.folder}  {bred.artifact.digest}")
    print("\n".join(told(bred, options.operator)))
    return EXIT_OK


def _sign(options: argparse.Namespace) -> int:
    from ecology.pipeline.signing import chosen_signer, sign_folder  # noqa: PLC0415

    house = doors(options)
    signer = chosen_signer(
        house,
        key=options.key,
        public_key=options.public_key,
        keyless=options.keyless,
        trust_config=options.trust_config,
        token=options.identity_token,
    )
    digest = sign_folder(options.adapter, signer, house, options.oms)
    print(f"signed {digest}\nby {signer.keyid}{' (development)' if signer.development else ''}")
    return EXIT_OK


def _verify(options: argparse.Namespace) -> int:
    from ecology.pipeline.signing import Anchors, verify_any, verify_folder  # noqa: PLC0415

    anchors = Anchors(options.policy, options.key, options.trusted_root, options.identity, options.issuer)
    if options.bundle is None and options.oms is None:
        trusted, lines = verify_folder(Path(options.adapter), anchors, doors(options))
    else:
        trusted, lines = verify_any(options.adapter, options.bundle, options.oms, anchors)
    print("\n".join(lines))
    return EXIT_OK if trusted else EXIT_REFUSED
