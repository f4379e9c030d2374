"""Types of the public names, which `dtscodec/__init__.py` imports on first use."""

from dtscodec.activations.gram_file import save_grams as save_grams
from dtscodec.adapters.exporting.export_adapter import export_adapter as export_adapter
from dtscodec.adapters.importing.import_adapter import import_adapter as import_adapter
from dtscodec.calibration.collect import collect as collect
from dtscodec.calibration.encode_calibrated import encode_calibrated as encode_calibrated
from dtscodec.calibration.fit import FitReport as FitReport
from dtscodec.calibration.fit import fit as fit
from dtscodec.calibration.gram_collector import collect_grams as collect_grams
from dtscodec.checkpoints.base import Base as Base
from dtscodec.decoding.compare import Comparison as Comparison
from dtscodec.decoding.compare import compare as compare
from dtscodec.decoding.decode import decode as decode
from dtscodec.decoding.decoded import Decoded as Decoded
from dtscodec.decoding.verify import verify as verify
from dtscodec.encoding.config import Best as Best
from dtscodec.encoding.config import EncodeConfig as EncodeConfig
from dtscodec.encoding.config import Paper as Paper
from dtscodec.encoding.encode import encode as encode
from dtscodec.encoding.encode_all import encode_all as encode_all
from dtscodec.encoding.journal import Journal as Journal
from dtscodec.encoding.pack_report import EncodeReport as EncodeReport
from dtscodec.encoding.pack_report import PackReport as PackReport
from dtscodec.encoding.targets import MaxError as MaxError
from dtscodec.encoding.targets import Rank as Rank
from dtscodec.encoding.targets import RankShare as RankShare
from dtscodec.encoding.targets import Size as Size
from dtscodec.errors import DtsError as DtsError
from dtscodec.evaluation.compare_behaviour import compare_behaviour as compare_behaviour
from dtscodec.fusion.fuse import fuse as fuse
from dtscodec.hub.push import push as push
from dtscodec.merging.family import encode_family as encode_family
from dtscodec.merging.merge import merge as merge
from dtscodec.packs.pack import Pack as Pack
from dtscodec.packs.pack_info import directory_info as directory_info
from dtscodec.packs.pack_info import info as info
from dtscodec.report.write_report import write_report as write_report
from dtscodec.runtime.apply import apply_ as apply_
from dtscodec.runtime.attach import attach as attach
from dtscodec.runtime.pretrained import from_pretrained as from_pretrained
from dtscodec.runtime.switcher import Switcher as Switcher
from dtscodec.version import __version__ as __version__

open = Pack
