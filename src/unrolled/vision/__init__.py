"""Images: read in whatever form they come, brought to one size, and turned into `Encoded` by a convolutional trunk."""

from unrolled.vision.encoder import ImageEncoder as ImageEncoder
from unrolled.vision.images import MAX_PIXELS as MAX_PIXELS
from unrolled.vision.images import ImageError as ImageError
from unrolled.vision.images import ImageTransform as ImageTransform
from unrolled.vision.images import read_image as read_image
from unrolled.vision.trunks import EfficientNetLiteTrunk as EfficientNetLiteTrunk
from unrolled.vision.trunks import SmallTrunk as SmallTrunk
from unrolled.vision.trunks import TimmTrunk as TimmTrunk
from unrolled.vision.trunks import TorchvisionTrunk as TorchvisionTrunk
from unrolled.vision.trunks import Trunk as Trunk
