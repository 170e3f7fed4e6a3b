"""An epoch's work the way the published code does it.

Images one by one through PIL and torchvision transforms, in worker processes; float32, NCHW; the table and the
calibration error row by row in Python; torch's own SGD; the training set run through the network a second time,
augmented, for its accuracy.
"""

import torch
import torch.nn.functional as F
from PIL import Image
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from models import build_model


class Images(Dataset):
    """(x, y, idx), one at a time."""

    def __init__(self, images, labels, idx, mean, std):
        self.images, self.labels, self.idx = images, labels, idx
        crop = transforms.RandomCrop(images.shape[1], padding=4)
        steps = [crop, transforms.RandomHorizontalFlip(), transforms.ToTensor(), transforms.Normalize(mean, std)]
        self.transform = transforms.Compose(steps)

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, i):
        return self.transform(Image.fromarray(self.images[i])), self.labels[i], self.idx[i]


def update_rows(table, idx, prob, smoothing):
    """The moving average, a row at a time; a row that sums to 0 was never visited."""
    for i, p in zip(idx, prob, strict=True):
        if table[i].sum().item() == 0:
            table[i] = p
        else:
            table[i] = (1 - smoothing) * table[i] + smoothing * p


def calibration_error(confidence, correct, n_bins=10):
    """ECE, a sample at a time."""
    count, confident, right = [0] * n_bins, [0.0] * n_bins, [0.0] * n_bins
    edges = [torch.tensor((b + 1) / n_bins) for b in range(n_bins)]
    for c, r in zip(confidence, correct, strict=True):
        b = next(b for b in range(n_bins) if c <= edges[b])
        count[b] += 1
        confident[b] += c.item()
        right[b] += r.item()
    return sum(abs(right[b] - confident[b]) for b in range(n_bins)) / sum(count)


class PublishedStyle:
    """The epoch, as many updates long as the experiment's."""

    def __init__(self, experiment, workers):
        data, args = experiment.data, experiment.args
        rows, split = data.train_idx, data.dataset.train
        images = Images(split.images.cpu().numpy()[rows], data.ny[rows], rows, data.dataset.mean, data.dataset.std)
        # persistent: no starting of workers in the time that is measured; the published epochs are long
        self.loader = DataLoader(
            images, args.batch_size, shuffle=True, num_workers=workers, persistent_workers=True, drop_last=True
        )
        self.device, self.smoothing = experiment.hardware.device, args.smoothing
        self.model = build_model(args.net, data.dataset.num_classes, data.dataset.image_size).to(self.device)
        self.optimizer = torch.optim.SGD(
            self.model.parameters(), args.lr, momentum=args.momentum, weight_decay=args.weight_decay
        )
        self.table = torch.zeros(len(data.y), data.dataset.num_classes, device=self.device)

    def epoch(self):
        self.model.train()
        for x, y, idx in self.loader:
            logits = self.model(x.to(self.device))
            value = F.cross_entropy(logits, y.to(self.device))
            self.optimizer.zero_grad()
            value.backward()
            self.optimizer.step()
            prob = logits.detach().softmax(1)
            update_rows(self.table, idx, prob, self.smoothing)
        self.figures()

    @torch.no_grad()
    def figures(self):
        """(accuracy, ECE) on the training set, from another augmented pass."""
        self.model.eval()
        confidence, correct = [], []
        for x, y, _ in self.loader:
            top, predicted = self.model(x.to(self.device)).softmax(1).max(1)
            confidence.append(top)
            correct.append(predicted == y.to(self.device))
        confidence, correct = torch.cat(confidence), torch.cat(correct)
        return correct.double().mean().item(), calibration_error(confidence, correct)
