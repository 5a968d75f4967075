"""``ecology registry`` and ``ecology audit``: what this home knows, and the log that it follows from."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from ecology.cli.grammar import Argument, Sub, doors, leaf, whole
from ecology.errors import EXIT_OK, EXIT_REFUSED


def registry_commands(parser: Sub, common: Sub) -> None:
    """Adds what is asked of the registry, and what is said to it."""
    digest: Argument = (
        "digest",
        {"metavar": "DIGEST", "help": "a digest, the beginning of one, a name or an alias"},
    )
    reason: Argument = ("--reason", {"required": True, "metavar": "TEXT", "help": "why; it is kept for ever"})
    policy: Argument = ("--policy", {"default": "release", "metavar": "FILE", "help": "whose signatures count"})
    admitting: Argument = ("--policy", {"default": "release", "metavar": "FILE", "help": "that has to admit it"})
    file: dict[str, Any] = {"type": Path, "metavar": "FILE"}
    approving: list[Argument] = [
        ("--key", {"metavar": "FILE", "help": "the approver's private key, or a URI (default: this home's)"}),
        ("--public-key", {**file, "help": "the public half of a key behind a URI"}),
        ("--role", {"default": "", "metavar": "TEXT", "help": "in which capacity"}),
        ("--reject", {"action": "store_true", "help": "object instead"}),
    ]
    lists: list[Argument] = [
        ("--export", {**file, "help": "write the revocations of this home here, signed"}),
        ("--import", {**file, "dest": "taken", "help": "take in a list of another home"}),
        ("--key", {**file, "help": "PEM public key of that home"}),
    ]
    alias: Argument = ("--alias", {"default": "champion", "metavar": "NAME"})
    again: list[Argument] = [
        ("--yes", {"action": "store_true", "help": "also where it has to be trained again, which takes its time"}),
        (
            "--batch-size",
            {
                "type": whole("backend.batch_size"),
                "default": 64,
                "metavar": "N",
                "help": "backend.batch_size of its run",
            },
        ),
    ]
    leaf(
        parser,
        common,
        [
            ("list", "every adapter with its last verdict", _registry_list, []),
            ("show", "one adapter: genome, claims, verdicts", _registry_show, [digest]),
            ("lineage", "the family tree of an adapter, verified to its founders", _registry_lineage, [digest, policy]),
            ("promote", "move an alias to an admitted adapter", _registry_promote, [digest, alias, admitting]),
            ("rollback", "move an alias back to its previous adapter", _registry_rollback, [alias]),
            ("replay", "make an adapter again from its genome: the same bytes?", _registry_replay, [digest, *again]),
            ("revoke", "quarantine an adapter and all its descendants", _registry_revoke, [digest, reason]),
            ("revocations", "export or import a signed list of revocations", _registry_revocations, lists),
            ("approve", "sign that an adapter may breed on", _registry_approve, [digest, reason, *approving]),
            ("stop", "stop every run of this home at its next step", _registry_stop, [reason]),
            ("resume", "let runs start again", _registry_resume, [reason]),
            ("rebuild", "make the registry anew from the log", _registry_rebuild, []),
        ],
    )


def audit_commands(parser: Sub, common: Sub) -> None:
    """Adds what is asked of the log."""
    leaf(
        parser,
        common,
        [
            ("verify", "recompute the tree and check every checkpoint given out", _audit_verify, []),
            ("export", "print the events as JSON lines, as they were hashed", _audit_export, []),
            ("checkpoint", "print the signed checkpoint, to keep elsewhere", _audit_checkpoint, []),
            ("clock", "say that the clock was set back on purpose", _audit_clock, []),
            ("prove", "inclusion proof of one event", _audit_prove, [("index", {"type": int, "metavar": "INDEX"})]),
            (
                "consistency",
                "prove that the log only grew since an old checkpoint",
                _audit_consistency,
                [
                    (
                        "--from",
                        {
                            "dest": "old",
                            "required": True,
                            "type": Path,
                            "metavar": "FILE",
                            "help": "a checkpoint, or a report.json",
                        },
                    )
                ],
            ),
        ],
    )


def _registry_list(options: argparse.Namespace) -> int:
    from ecology.pipeline import facts  # noqa: PLC0415

    print(facts.listing(doors(options)))
    return EXIT_OK


def _registry_show(options: argparse.Namespace) -> int:
    from ecology.pipeline import facts  # noqa: PLC0415

    print(json.dumps(facts.show(doors(options), options.digest), indent=2, sort_keys=True))
    return EXIT_OK


def _registry_lineage(options: argparse.Namespace) -> int:
    from ecology.pipeline import facts  # noqa: PLC0415

    found = facts.lineage(doors(options), options.digest, options.policy)
    print(found.text)
    return EXIT_OK if found.holds else EXIT_REFUSED


def _registry_revoke(options: argparse.Namespace) -> int:
    from ecology.pipeline.revoking import revoke  # noqa: PLC0415

    print(revoke(doors(options), options.digest, options.reason))
    return EXIT_OK


def _registry_revocations(options: argparse.Namespace) -> int:
    from ecology.pipeline.revoking import export_list, import_list  # noqa: PLC0415

    if options.taken is not None and options.key is None:
        options.parser.error("--import needs --key, the public key of the home that signed the list")
    if (options.export is None) == (options.taken is None):
        options.parser.error("give one of --export and --import")
    if options.taken is None and options.key is not None:
        options.parser.error("--key belongs to --import: a list is exported under this home's own key")
    house = doors(options)
    print(export_list(house, options.export) if options.export else import_list(house, options.taken, options.key))
    return EXIT_OK


def _registry_approve(options: argparse.Namespace) -> int:
    from ecology.pipeline.revoking import approve  # noqa: PLC0415
    from ecology.pipeline.signing import chosen_signer  # noqa: PLC0415

    house = doors(options)
    signer = chosen_signer(
        house, key=options.key, public_key=options.public_key, keyless=False, trust_config=None, token=None
    )
    print(approve(house, options.digest, options.reason, signer, options.role, reject=options.reject))
    return EXIT_OK


def _registry_stop(options: argparse.Namespace) -> int:
    from ecology.pipeline.revoking import stop  # noqa: PLC0415

    print(stop(doors(options), options.reason))
    return EXIT_OK


def _registry_resume(options: argparse.Namespace) -> int:
    from ecology.pipeline.revoking import resume  # noqa: PLC0415

    print(resume(doors(options), options.reason))
    return EXIT_OK


def _registry_replay(options: argparse.Namespace) -> int:
    from ecology.pipeline.replaying import replayed  # noqa: PLC0415

    again = replayed(options.digest, doors(options), agreed=options.yes, batch_size=options.batch_size)
    print(f"made again: {again.bred.artifact.digest}")
    differing = ", ".join(again.differing)
    if again.same_bytes:
        print("the same bytes")
    elif differing:
        print(f"other bytes, which proves nothing: the environment differs in {differing}")
    else:
        print("OTHER BYTES in the same environment")
    print("the same genome" if again.same_genome else "another genome")
    if again.same_bytes and differing:
        print(f"although the environment differs in {differing}")
    return EXIT_OK if again.same_bytes else EXIT_REFUSED


def _registry_promote(options: argparse.Namespace) -> int:
    from ecology.pipeline import aliases  # noqa: PLC0415
    from ecology.pipeline.places import subject  # noqa: PLC0415
    from ecology.policy.reader import load_policy  # noqa: PLC0415

    policy = load_policy(subject(options.policy, "policies", ".yaml"))
    print(aliases.promote(doors(options), options.digest, options.alias, policy.digest))
    return EXIT_OK


def _registry_rollback(options: argparse.Namespace) -> int:
    from ecology.pipeline import aliases  # noqa: PLC0415

    print(aliases.rollback(doors(options), options.alias))
    return EXIT_OK


def _registry_rebuild(options: argparse.Namespace) -> int:
    from ecology.pipeline import facts  # noqa: PLC0415

    print(facts.rebuild(doors(options)))
    return EXIT_OK


def _audit_verify(options: argparse.Namespace) -> int:
    from ecology.pipeline import facts  # noqa: PLC0415

    print(facts.audit_verify(doors(options)))
    return EXIT_OK


def _audit_export(options: argparse.Namespace) -> int:
    for line in doors(options).log.export():
        print(line)
    return EXIT_OK


def _audit_checkpoint(options: argparse.Namespace) -> int:
    print(doors(options).log.checkpoint(), end="")
    return EXIT_OK


def _audit_clock(options: argparse.Namespace) -> int:
    from ecology.pipeline import facts  # noqa: PLC0415

    print(facts.accept_clock(doors(options)))
    return EXIT_OK


def _audit_prove(options: argparse.Namespace) -> int:
    from ecology.pipeline import facts  # noqa: PLC0415

    print(facts.audit_prove(doors(options), options.index))
    return EXIT_OK


def _audit_consistency(options: argparse.Namespace) -> int:
    from ecology.pipeline import facts  # noqa: PLC0415

    print(facts.audit_consistency(doors(options), options.old))
    return EXIT_OK
