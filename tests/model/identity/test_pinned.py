"""Fingerprints as they have always been, of values in every Python, of code in one minor version.

How the table was made, with each Python: ``python -c "import json, pinned; print(json.dumps(pinned.fingerprints()))"``.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pinned
import pytest
from support import REPOSITORY, run_python

# Fingerprints of earlier releases are in users' records: one that changes here makes their results be made anew.
VALUES = {
    "None": "01eac3e9788d6a453cfce4aa65689a391ceb98542768c5909fc21e7e322b7d9c",
    "bool": "9b7956f10cc131ba08a33bb52eeac3e234f7d40ad136da905b40bb6dc0f77960",
    "int": "c998ecf22c084ac7d41be949c0a0890b65c464178b2d862217ff273f8787f127",
    "large int": "68484186be8aa1d7d14845d2c7db7011b36ad9eeb4af63c33ef24248e46f28e6",
    "float": "8376ce208a937dfc94b8678d63197127d20d48d0dd88985f18c239bde5ae208b",
    "nan": "5b108ae99b104b8a850a927d74659e996d450b6f85a2b699f43538b5b8474220",
    "complex": "d87a4ac9088b12e378dad29acc6fe54881036d9aadcbb456db1ce00602dc2f95",
    "str": "337f5d48f90608a8486055957e56936c978b33e525d2b1d7fb4d94fd73ce9868",
    "long str": "ad25efadb77cc5d9e4d4c37d00df5a5e3e46362f4875e74ff20c4055d7d1ceb4",
    "bytes": "33c4b533f0859f016a1272dac9c6647b126c1e0ec711afd50c2292b3800cd4d3",
    "bytearray": "01644cfc9978d9f0a20254eaae6cd6ad7faeb883e4f8a6a9ee77f1ec477ce531",
    "memoryview": "d04475427981e6ba7f8d9619f593cc5ebc1b9c5588c42f4cff6d6c44ea5fb097",
    "Ellipsis": "4368e92015118bd0bd2f1370eb3d3cede44eadb2a96a490c03e43ca1130fcb77",
    "range": "badf46af6663dde39ab8f389010a0c931e94dd0424d17b2a8806b68c9c697957",
    "slice": "291d415f272cca828649d2016518139c21cbdd7e6b2945715b4c0a791472024e",
    "tuple": "12ba2b70803432c0444e1b3f14b48f325918ae75787ce45b43ab9776e46ced25",
    "list": "5e1742d5c9dbecb5bdd79e6b32ab7e364d69bf675d6091bfa92d559692bce0ac",
    "dict": "87636f7452c406b0095b29f1a63e4a0b2766cf4ab71344077ae6bcb6642307eb",
    "set": "b8ac652d6fd52bd8aacea52201ebcb58b91ed4ea2443839f5a233479f916f338",
    "frozenset": "5658171381f12c1050d40cb70c05eee8db012c2c6565f57f0916b07e84450969",
    "sets in a dict": "897ca7d6c9ba9ee92973cd93f7777ec82d1c7a65a112b1574a61bcc4d2e35ad4",
    "cycle": "de76e0e58e7d1db7c3d3a50b7a8352fda14d3aa5dc1b01cda2d2bfdaeebb9fbe",
    "named tuple": "adecbd6123583ac02564a6205a36c8e2e0de33f24221709c22089896fa939dff",
    "dataclass": "16c9fbf5b1fcbf9402a60c36f110f90570b826a34b4dfaedfe007de82fa96983",
    "frozen dataclass": "fce9484a50ea7c494f9fc911e7beec6fa176d69f9a75a1ba61ed23426339de4f",
    "object": "b2d49809da686e3dee55a5531c6af73a4788fd34ac71008751c4ccc5bca4c62d",
    "set subclass": "b89ff7a734c702359265977cd4c24fec836ba8a3ad11a0d35467e112cda73a58",
    "namespace": "f7ddc75859bdd4c2cd22773161ef1d677c420c43c8bcd277152cb530988341a4",
    "OrderedDict": "493295e7d5ede3041bc24a3cc5ce0d1237c7976fdb4c257ded6286c6597a79c2",
    "defaultdict": "d50c4a19ee2da8c17aa3d8f19e83b7e8d9d668a9c140192448be2a4c85660b8f",
    "Counter": "b1082ed80d01296c978d001d11b0b6f295b72b1671d97d0b8156c895d98f480d",
    "deque": "45e971513c7f8d86c345a5a160925dc97fa6de4d0c07091877f790f6f711f6ef",
    "enum": "907967d9d87907192891adaa60326477d6b47ccbad637cfb1750f28ab57c40a7",
    "int enum": "bc72ccea51fcb2b82b9250f08155f193b4d95398054844da0092d6090f6da27a",
    "flags": "fe7fcd6afbf69acab634016bb9096f7e1109d5b5e4c4a60dfa41ac3db68177d9",
    "datetime": "ccda1130b3bfd9c5e4d9f2ddc2134599d80b7e6d0a6dae0a441e3ea455627910",
    "aware datetime": "d7751078138c8fffc17e70ab64cb54c408918a90d4bbaeb5032ecf4329b5fae1",
    "datetime in a zone": "6dcc6818653f6183c72a388ab9f0a5d829c0edac74bb3794dbcf3ffeb150f3a6",
    "date": "3a557d8a3249bbadba0569713c6b5942263058a4b830c6cca3a311200b14cf32",
    "time": "d018acf069572496d3153c80a553a2826a853c6eef432b97cb60e3dd8a7a4e11",
    "timedelta": "c4c2899dad7aac838f79d153040e7eb432f89eb79b7436c2789ebe4344a23786",
    "Decimal": "85001493b18cfc0c08477e046d2c98db025a694d91c68412ed7ed11394ddcc80",
    "Fraction": "f9cafd66db04bddc9c3dae4e19ae69f49d4edddd0102821c6c48545f1383fcdc",
    "UUID": "85baad2a50aac152f8705a82f06f128ef4f44e0ac46abacb47d6f106aa38e876",
    "Path": "1537f4527ede1a8705952c9dc632c39532b5dbbb9f5bcdf3676dbcbd25b19684",
    "PurePath": "280b7945e0629242eed5d3d6c82962818b96eda8b97881ca6523b1f661c4bed0",
    "pattern": "2157ffc02f70dff90387720b9f8a55d20e02e3b1b28d618bb0288de9b4f77a49",
    "exception": "b3e8d09a2bdd18ee4e3ace38e185dcb737786950797a78628b91a8f8ebbe88fc",
    "builtin function": "17ddfb572ff2ea5aeca4f3f3337219776805d0c63c62dcc51429cc8de87f0dad",
    "method of a builtin": "d65d5f4e17702ea9ca93bcb022f5429deae65201462c0beb236c1b138be4e286",
    "module": "f185bfa02aa71097608524bee46ebcf9e636a71eed48c649a0a94c601bcf6d00",
    "installed function": "504d2ae8abe57e39ab8dfe6bbd3740b2c17df4760040183daed6449f8b79aa1d",
    "installed class": "041fbd079f35a68bc7437f11e6302f49ed413ca4b49a40296c87951fa7999230",
    "random state": "254bfd32fa7628665f2596853e48f0bef665877a1057ccfaea18e183435c82d1",
    "generic alias": "e5aa9000612388ae5f1b99b61360631de684d8641515158dbecad6219835dc49",
    "operator": "9ee1b5584e296c10c09b9947e30068c624bf2b16497583b0f21d10b2190d6c0e",
    "partial of a builtin": "b19330c37c5a905dd6ead2f2b9681f8bfbe9f714823b1bce02b59ed4e1902125",
    "array": "946cc3188924d84759cd4371a9b4fe4c4f93e96ca930d8da4ac0e1a07eeab7de",
    "array of ints": "835366e4e2b7a90df94e80810f867345036113decd0bbf756db21a354fbfdffa",
    "array of big-endian": "70de9fcaec3e3cd27a73dd8b60853a320d6438ab0c6cbb7375c687b2540ed118",
    "array of bools": "d98bb959eea04a1f8eb3bd99dc242e1fe29ab597aabc10f72cebea32328dde26",
    "array of texts": "7b577be6b9ea7fb7787bbf47ed53c7fa93379efb5db7233788d8b2a7c8d4696a",
    "array of times": "5e0866485f1ae3e23e0eccb2cb9fd9723aa3bd835fd547a991f4e8d7292bf6ce",
    "array of structures": "04021fad2a7b455c37ba5973b66c0da469ba30a812f484071e54dc6bc188a84c",
    "array of objects": "39121a7a9bc3793ed6c14bf37f9cc270d994d82e0e1f565c61bd6f8621ae1762",
    "array without elements": "e83e00fedca92b2203ce76066b0fcdc98d2c0b5ee78fe6c93f669d30fcdcbca0",
    "array without dimensions": "861be3757ad4beab3b88aead062c1dbe535b52c09ba4acaf505e99723e425056",
    "strided array": "5d7dce8ef5c9c24b28f06c0f35cc86dd1814e453d843eafbc4568919c698f372",
    "Fortran array": "946cc3188924d84759cd4371a9b4fe4c4f93e96ca930d8da4ac0e1a07eeab7de",
    "NumPy scalar": "3dabd225a4a3b2a7f2724425908fa87db311e13ffb749c9f04d541bd2b52e9b3",
    "dtype": "372ef606d356fe77eefcd66c9fa7fefd822d4463ad240683ad1ec98b781d91f0",
    "a call's inputs": "623fee52e3560d0f4092a53dc11152536d7911ece5787a8a7c24d6dd11b1fd57",
}

# Code is that of one minor version of Python: functions, classes and what holds them.
CODE = {
    "3.11": {
        "function": "7a84ac5ba7b7f6b28a0a55662dece1f2bf2e8a81de8b9b91e2921f14d1c5c962",
        "partial": "ce08cf849b1dedcb284ee50e4b97cfc8d4e795df3fa04fd8026be136288711a9",
        "class": "0cfecd6b3ca408de8a087492b7049a2f0f841206af2653d9752c6d9bfdfa51fb",
        "method": "fa1df823a4c3ef9a097bf7b9bf404658d8652369d48afc03a7139c75a40336c4",
        "a function's code": "9bf27aedc05dd0f3c338adee53ace118d457481781d2868210c26dd9f951a368",
    },
    "3.12": {
        "function": "318326f48812853ae02f01475b702b488a6e038dbfff626286893adc9fdcbca1",
        "partial": "22b4bd2e7875ffb76a1ef5fd178af707fb79930e05b6e360c3f4a5356c819bfd",
        "class": "b17bbe6d37b5ef3a4ca4c0aad6909b805bb305103d71368612c8ef901085c9f1",
        "method": "c670204dde82d04cdbe572c6a682feccd58d21baae406bb14e8f08178dfdfbb8",
        "a function's code": "6a4705e8c348bbcd592cebc70aae2d9531b80245efaeaf28fb93e2c20eb3bb11",
    },
    "3.13": {
        "function": "0cb3bdf07f189bfa846da450cee83322d4079e9d7eb6540d542751f584b0ded3",
        "partial": "71b064cba22ad7e732bc7f16055c1360cd09dc64dfcbb01ce6ea7970e6ab2444",
        "class": "4db93e03ad4b2a1d572daa8214870cfcd4adf03424ee6f819ba63c5131eb5ac3",
        "method": "c6baad0935d64dfb84f6d74b65968f01fba8ee56cddd465c32def36d669b9f7d",
        "a function's code": "74580fea2652d69df76a6c71ebe196647ca41544d5cec43ec66fd78cd08ceaca",
    },
}
NOW = f"{sys.version_info.major}.{sys.version_info.minor}"
FOUND = pinned.fingerprints()


def test_the_table_is_complete() -> None:
    assert VALUES.keys() | CODE["3.11"].keys() == FOUND.keys()
    assert all(table.keys() == CODE["3.11"].keys() for table in CODE.values())


def test_no_two_are_alike() -> None:
    digests = [digest for table in (VALUES, *CODE.values()) for digest in table.values()]
    assert VALUES["array"] == VALUES["Fortran array"]  # the same content in another order
    assert len(digests) - len(set(digests)) == 1


@pytest.mark.parametrize("name", VALUES)
def test_a_value_is_as_ever(name: str) -> None:
    assert FOUND[name] == VALUES[name]


@pytest.mark.parametrize("name", CODE["3.11"])
def test_code_is_as_ever_in_this_python(name: str) -> None:
    known = {version: table[name] for version, table in CODE.items()}
    assert FOUND[name] == known.get(NOW, FOUND[name])
    assert {version for version, digest in known.items() if digest == FOUND[name]} <= {NOW}


@pytest.mark.parametrize("seed", ["0", "1", "2", "random"])
def test_every_process_says_the_same(seed: str) -> None:
    path = os.pathsep.join([str(REPOSITORY), str(Path(__file__).parent)])
    environment = {**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": path}
    code = "import json, pinned; print(json.dumps(pinned.fingerprints()))"
    assert json.loads(run_python(code, env=environment).stdout) == FOUND
